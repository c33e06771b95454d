"""The stages that make the scenes' checkpoints."""
