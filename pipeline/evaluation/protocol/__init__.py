"""What is tested on, what trains, and what is hidden: the pairs of an evaluation."""
