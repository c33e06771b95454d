"""Nearest neighbours of stored embeddings: a faiss index, exact search, and reads where they lie."""

from kb.index.embedding_index import EmbeddingIndex
from kb.index.kinds import IndexSettings

__all__ = ["EmbeddingIndex", "IndexSettings"]
