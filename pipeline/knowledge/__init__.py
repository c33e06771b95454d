"""The knowledge base of a run: pairs embedded, built, measured."""
