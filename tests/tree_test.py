"""Pytree helpers against NumPy and hashlib."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree

TREE = {"a": [np.arange(6.0).reshape(3, 2), np.arange(3)], "b": {"c": None}}


def test_names_are_paths_and_reach_map_leaves():
  assert tree.names({"x": {"y": (1, 2)}, "z": 3}) == {
    "x": {"y": ("x/y/0", "x/y/1")},
    "z": "z",
  }
  doubled = tree.map_leaves(lambda name, leaf: (name, leaf), {"x": [7]})
  assert doubled == {"x": [("x/0", 7)]}


def test_size_is_the_shared_leading_axis():
  assert tree.size(TREE) == 3
  assert tree.size({}) == 0
  with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
    tree.size((np.zeros((2, 5)), np.zeros(3)))


def test_take_concatenate_and_stack_work_leaf_by_leaf():
  taken = tree.take(TREE, np.array([2, 0]))
  np.testing.assert_array_equal(taken["a"][0], [[4.0, 5.0], [0.0, 1.0]])
  np.testing.assert_array_equal(taken["a"][1], [2, 0])

  joined = tree.concatenate(taken, TREE)
  np.testing.assert_array_equal(joined["a"][1], [2, 0, 0, 1, 2])
  assert joined["b"] == {"c": None}

  stacked = tree.stack([TREE, TREE])
  assert stacked["a"][0].shape == (2, 3, 2)
  np.testing.assert_array_equal(stacked["a"][1][1], TREE["a"][1])


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    ({"a": [1.0, 2.0], "i": [3]}, True),
    ({"a": [1.0, np.nan]}, False),
    ({"a": [0.0], "b": [-np.inf]}, False),
    ({"i": [3]}, True),
    ({}, True),
  ],
)
def test_all_finite_looks_at_every_floating_leaf(values, expected):
  values = {name: jnp.array(value) for name, value in values.items()}
  assert bool(jax.jit(tree.all_finite)(values)) is expected


def test_digest_is_sha256_of_headers_and_bytes():
  content = {"b": np.array([[1, 2]], np.int32), "a": np.float32(1.5)}
  sha = hashlib.sha256()
  sha.update(b"a float32 ();" + np.float32(1.5).tobytes())
  sha.update(b"b int32 (1, 2);" + np.array([1, 2], np.int32).tobytes())
  assert tree.digest(content) == sha.hexdigest()
  assert tree.digest(jax.tree.map(jnp.asarray, content)) == sha.hexdigest()


def test_digest_tells_values_dtypes_shapes_and_names_apart():
  matrix = np.arange(4, dtype=np.int32).reshape(2, 2)
  different = [
    {"a": matrix},
    {"b": matrix},
    {"a": matrix.T},
    {"a": matrix.reshape(4)},
    {"a": matrix.astype(np.uint32)},
    {"a": matrix + np.int32(1)},
    {"a": {"a": matrix}},
    {"a": matrix, "b": matrix},
  ]
  assert len({tree.digest(content) for content in different}) == len(different)
