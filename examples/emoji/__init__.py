"""The example world: emoji in several drawing styles, and small checkpoints trained on them."""
