"""Recipes for published benchmarks."""
