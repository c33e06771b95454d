"""The forms a dataset comes in, one module a form, all behind the protocol `Source`.

A source knows how its form is laid out and yields the columns it finds; `pipeline.dataset.dataset` makes
the same columns of all of them. Imports nothing of the pipeline but its own siblings.
"""
