"""How good what a run makes is: complete pairs completed as if they lacked a half, and compared with it."""
