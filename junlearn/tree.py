"""Pytree helpers that `jax.tree` and `optax.tree` lack."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from junlearn.typing import PyTree


def path_name(path: tuple[Any, ...]) -> str:
  """The path of a leaf as `a/b/0`, the form that patterns match against."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: PyTree) -> PyTree:
  """A tree of the same structure whose leaves are their own path names."""
  return jax.tree_util.tree_map_with_path(lambda p, _: path_name(p), tree)


def size(tree: PyTree) -> int:
  """Leading-axis length shared by all leaves, i.e. the number of examples.

  Args:
    tree: a pytree of arrays `[n, ...]`; an empty tree has size 0.

  Raises:
    ValueError: if the leaves disagree on their leading axis.
  """
  sizes = {leaf.shape[0] for leaf in jax.tree.leaves(tree)}
  if len(sizes) > 1:
    raise ValueError(
      f"examples disagree on their number: axis 0 has lengths {sorted(sizes)}; "
      "all leaves must share one."
    )
  return sizes.pop() if sizes else 0


def take(tree: PyTree, indices: ArrayLike | slice) -> PyTree:
  """Rows `indices` of every leaf along axis 0."""
  return jax.tree.map(lambda leaf: leaf[indices], tree)


def concatenate(*trees: PyTree) -> PyTree:
  """Trees of one structure joined along axis 0."""
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


def stack(trees: Sequence[PyTree]) -> PyTree:
  """Trees of one structure stacked on a new axis 0."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def all_finite(tree: PyTree) -> jax.Array:
  """Scalar bool: no NaN and no infinity in any floating leaf."""
  leaves = [
    _is_finite(leaf)
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(leaves)) if leaves else jnp.asarray(True)


@jax.jit
def _is_finite(leaf):
  return jnp.all(jnp.isfinite(leaf))


def map_leaves(function: Callable, tree: PyTree) -> PyTree:
  """Applies `function(name, leaf)`, the name being the leaf's path."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: function(path_name(path), leaf), tree
  )


def digest(tree: PyTree) -> str:
  """SHA-256 of the leaves' paths, dtypes, shapes and bytes, on the host.

  Leaves are visited in the order of `jax.tree.flatten`.
  """
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    array = np.asarray(leaf)
    header = f"{path_name(path)} {array.dtype} {array.shape};"
    sha.update(header.encode())
    sha.update(np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()
