"""The commands, by what they are for: a dataset to look at, a job to do, its result."""
