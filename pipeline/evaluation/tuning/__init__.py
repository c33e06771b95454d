"""Settings tuned on the dataset's own pairs, with the evidence."""
