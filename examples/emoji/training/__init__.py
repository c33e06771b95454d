"""How the example world's checkpoints are trained: one stage a module."""
