"""What comes in: the forms of datasets, their columns and images, and rows by what they lack."""
