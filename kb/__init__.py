"""The knowledge base: encoders, mapping, alignment, filter, index and retrieval.

It answers with ids and scores. Imports neither generators, selection, pipeline nor flows.
"""
