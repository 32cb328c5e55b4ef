"""Agglomerative clustering, held against a plain one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.clusters import Floats, centroids, cluster, in_order


def around(*directions: int, each: int = 5, spread: float = 0.1, seed: int = 0) -> Floats:
    """Vectors of length 1 around axes of 16 dimensions, in turns."""
    random = np.random.default_rng(seed)
    axes = np.eye(16)[list(directions) * each]
    made = axes + random.normal(size=axes.shape) * spread
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


def plain(vectors: Floats, similarity: float) -> list[int]:
    """The definition: mean cosine over all pairs, in as many steps as it takes."""
    groups = [[i] for i in range(len(vectors))]
    cosine = vectors.astype(np.float64) @ vectors.T
    while len(groups) > 1:
        linked = {
            (i, j): cosine[np.ix_(groups[i], groups[j])].mean()
            for i in range(len(groups))
            for j in range(i)
        }
        (i, j), best = max(linked.items(), key=lambda one: one[1])
        if best < similarity:
            break
        groups[j] += groups.pop(i)
    labels = np.zeros(len(vectors), np.intp)
    for number, group in enumerate(groups):
        labels[group] = number
    return [int(label) for label in in_order(labels)]


@given(st.integers(0, 1_000), st.integers(1, 14), st.floats(-0.5, 0.9))
def test_clusters_are_those_of_the_definition(seed: int, count: int, similarity: float) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert cluster(vectors, similarity).tolist() == plain(vectors, similarity)


def test_clusters_are_numbered_in_order_of_appearance() -> None:
    assert cluster(around(3, 1, 2), 0.6).tolist() == [0, 1, 2] * 5


@pytest.mark.parametrize("count", [0, 1])
def test_no_vector_or_one_is_no_cluster_or_one(count: int) -> None:
    assert cluster(around(0, each=count), 0.6).tolist() == [0] * count


def test_more_vectors_than_are_compared_belong_to_the_nearest_cluster() -> None:
    vectors = around(5, 9, each=40)
    assert cluster(vectors, 0.6, max_clustered=10).tolist() == [0, 1] * 40


def test_centroids_have_length_one_and_the_direction_of_their_cluster() -> None:
    made = centroids(around(0, 1, spread=0.05), np.array([0, 1] * 5))
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0)
    assert made.argmax(axis=1).tolist() == [0, 1]
