"""Evaluation: hide known halves, complete them under each variant, and measure what it is worth."""
