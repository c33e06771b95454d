"""Figures of an evaluation, their intervals, and the comparisons that they allow."""
