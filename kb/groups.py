"""Rows that are not independent: those that share a picture or a text, as COCO's five a picture.

What is measured on rows that were held out must hold out the others of their group as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# A text of more rows is a label or a common phrase: rows that come anew will have it too.
COMMON = 10
# A chain of shared texts that joins more than this share of all rows is no group.
LARGEST_SHARE = 0.1


def content_groups(pictures: ArrayLike, texts: ArrayLike) -> np.ndarray:
    """Numbers the groups of rows that share a picture or a text.

    Rows of one picture are always of one group. So are rows of one text, unless more than
    `COMMON` rows have it, or texts would chain more than a tenth of all rows together: these are
    told apart by their pictures alone.

    Parameters
    ----------
    pictures, texts : n digests each
        Strings or integers; equal where the content is.

    Returns
    -------
    int64 [n]
        Groups from 0, in the order of their first rows.
    """
    by_picture, by_text = _numbered(pictures), _numbered(texts)
    if len(by_picture) != len(by_text):
        raise ValueError(
            f"pictures and texts must have one entry a row; got {len(by_picture)} and {len(by_text)}"
        )
    if len(by_picture) == 0:
        return by_picture
    rows_of_text = np.bincount(by_text)[by_text]
    joining = (rows_of_text > 1) & (rows_of_text <= COMMON)
    groups = _components(by_picture, by_text, joining)
    large = np.bincount(groups)[groups] > max(COMMON, LARGEST_SHARE * len(groups))
    if (large & joining).any():
        groups = _components(by_picture, by_text, joining & ~large)
    return _numbered(groups, in_order=True)


def _components(by_picture: np.ndarray, by_text: np.ndarray, joining: np.ndarray) -> np.ndarray:
    """Pictures that are connected by texts, int64 [n]; only the rows `joining` connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pictures = int(by_picture.max()) + 1
    size = pictures + int(by_text.max()) + 1
    edges = (by_picture[joining], pictures + by_text[joining])
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(size, size))
    return connected_components(graph, directed=False)[1][by_picture]


def _numbered(values: ArrayLike, in_order: bool = False) -> np.ndarray:
    """Equal values by equal numbers from 0, int64 [n]; by first appearance where `in_order`."""
    _, first, inverse = np.unique(np.asarray(values), return_index=True, return_inverse=True)
    if in_order:
        return np.argsort(np.argsort(first))[inverse].astype(np.int64)
    return inverse.astype(np.int64)


def deal(groups: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """The part of each row, int64 [n] below `parts`, at random; a group lies in one part."""
    count = int(groups.max()) + 1
    return (generator.permutation(count) % min(parts, count))[groups]


def halves(groups: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of two random halves, each in a random order of groups that lie in it whole."""
    place = np.empty(int(groups.max()) + 1, dtype=np.int64)
    place[generator.permutation(len(place))] = np.arange(len(place))
    order = np.argsort(place[groups], kind="stable")
    # The first group that begins in the second half.
    begins = np.flatnonzero(np.diff(place[groups[order]], prepend=-1))
    cut = begins[np.argmin(np.abs(begins - len(order) // 2))] if len(begins) > 1 else len(order)
    return order[:cut], order[cut:]
