"""The example world: scenes of a few things, told in the words of three domains."""
