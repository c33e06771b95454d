"""The results as tables, curves, Markdown and a page."""
