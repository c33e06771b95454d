"""What is measured of a completed dataset: its halves, its examples, and what it is worth."""
