"""The completed dataset in the layouts that other tools read."""
