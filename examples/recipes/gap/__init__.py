"""A world with the paper's gap: generators that learned from photographs alone, and two targets."""
