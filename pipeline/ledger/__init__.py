"""What is done, what is pending, and what a person said of it."""
