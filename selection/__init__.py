"""Judging generated candidates: validity, BLEU, NIQE, and the score that chooses one.

The package takes strings, images and arrays; it loads no model and imports none of ``kb``,
``generators``, ``pipeline`` and ``flows``.
"""
