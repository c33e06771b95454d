"""Rows from their observed half to a row of the completed dataset, a block at a time."""
