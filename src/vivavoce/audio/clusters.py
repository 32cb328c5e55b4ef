"""Which of many voices are one, by the embeddings of their sound. Arithmetic only."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.intp]

MAX_CLUSTERED = 1_000
"""Vectors of which each pair is compared: half a second of work. Of more, so many are, spread
evenly; the others belong to the nearest of the clusters that these make."""


def cluster(vectors: Floats, similarity: float, *, max_clustered: int = MAX_CLUSTERED) -> Labels:
    """The number of the cluster of each vector [n, d] of length 1, in order of appearance.

    Agglomerative clustering with average linkage (UPGMA: Sokal and Michener 1958): the two clusters
    whose vectors have the highest mean cosine are joined until none reaches `similarity`.
    """
    if not len(vectors):
        return np.zeros(0, np.intp)
    if len(vectors) <= max_clustered:
        return in_order(_joined(vectors, similarity))
    chosen = np.linspace(0, len(vectors) - 1, max_clustered).round().astype(np.intp)
    labels = in_order(_joined(vectors[chosen], similarity))
    return in_order((vectors @ centroids(vectors[chosen], labels).T).argmax(axis=1))


def centroids(vectors: Floats, labels: Labels) -> Floats:
    """[clusters, d]: the mean direction of each cluster."""
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]), np.float32)
    np.add.at(sums, labels, vectors)
    made: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return made


def in_order(labels: Labels) -> Labels:
    """The same clusters, numbered from 0 in order of appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.intp)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[inverse]


def _joined(vectors: Floats, similarity: float) -> Labels:
    """A label for each vector, the same within a cluster."""
    count = len(vectors)
    linked = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(linked, -np.inf)
    sizes = np.ones(count)
    labels = np.arange(count)
    nearest = linked.argmax(axis=1)
    best = linked[np.arange(count), nearest]
    while best[first := int(best.argmax())] >= similarity:
        second = int(nearest[first])
        merged = sizes[first] * linked[first] + sizes[second] * linked[second]
        merged /= sizes[first] + sizes[second]
        merged[[first, second]] = -np.inf
        linked[first], linked[:, first] = merged, merged
        linked[second], linked[:, second] = -np.inf, -np.inf
        sizes[first] += sizes[second]
        labels[labels == second] = first
        stale = np.flatnonzero((nearest == first) | (nearest == second))
        stale = np.append(stale, (first, second))
        nearest[stale] = linked[stale].argmax(axis=1)
        best[stale] = linked[stale, nearest[stale]]
        closer = merged > best
        nearest[closer], best[closer] = first, merged[closer]
    return labels
