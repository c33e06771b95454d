"""Before a run: a draft of the config, what a run would do and take, what retrieval finds."""
