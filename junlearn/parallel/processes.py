"""Several processes that run one program, as on a pod.

Every process runs the whole program on its own devices. A population
(reference models, clients, seeds) is spread: each process computes the block
of members that `local_shard` names, and `gather` gives all of them every
member. What is no population is computed by every process alike, and where they
must not part, `broadcast` gives all of them what the first process has. Files
are the business of the first process alone: the others need none of its disks.

All processes must make the same calls in the same order. In a program of one
process every function here is the identity. Values travel as bytes, so that
neither a negative zero nor a float64 is lost, whatever the settings of JAX.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from junlearn.typing import PyTree


def is_first() -> bool:
  """Whether this is the process that writes files and reports."""
  return jax.process_index() == 0


def local_shard(members: int) -> np.ndarray:
  """The numbers `[members / processes]` of the members of this process.

  Raises:
    ValueError: if the processes do not divide the members.
  """
  count = jax.process_count()
  if members % count:
    raise ValueError(
      f"{members} members do not divide evenly over {count} processes; their "
      "number must be a multiple."
    )
  return np.arange(members).reshape(count, -1)[jax.process_index()]


def gather(block: PyTree, *, axis: int = 0) -> PyTree:
  """All members, from the blocks of all processes.

  Args:
    block: pytree of arrays with the members that `local_shard` names on `axis`;
      what has no such axis is common to all members and stays as it is.
    axis: where the members are.

  Returns:
    The pytree with the members of all processes on `axis`, in order.
  """
  if jax.process_count() == 1:
    return block

  def whole(leaf):
    if leaf.ndim <= axis:
      return leaf
    stacked = multihost_utils.process_allgather(_to_bytes(leaf))
    parts = [_from_bytes(part, leaf) for part in stacked]
    return _as_given(np.concatenate(parts, axis), leaf)

  return jax.tree.map(whole, block)


def broadcast(value: PyTree) -> PyTree:
  """What the first process has, for all.

  Args:
    value: pytree of arrays, of the same structure, shapes and dtypes in every
      process; only the first one's numbers matter.
  """
  if jax.process_count() == 1:
    return value
  sent = multihost_utils.broadcast_one_to_all(jax.tree.map(_to_bytes, value))
  return jax.tree.map(
    lambda content, leaf: _as_given(_from_bytes(content, leaf), leaf),
    sent,
    value,
  )


def broadcast_bytes(content: bytes | None) -> bytes | None:
  """The first process's bytes, or None if it has none, for all."""
  if jax.process_count() == 1:
    return content
  length = int(broadcast(np.int64(-1 if content is None else len(content))))
  if length < 0:
    return None
  here = bytes(length) if content is None or not is_first() else content
  return broadcast(np.frombuffer(here, np.uint8)).tobytes()


def _to_bytes(leaf: Any) -> np.ndarray:
  return np.frombuffer(np.asarray(leaf).tobytes(), np.uint8)


def _from_bytes(content: np.ndarray, like: Any) -> np.ndarray:
  array = np.frombuffer(content.tobytes(), like.dtype)
  return array.reshape(like.shape)


def _as_given(array: np.ndarray, leaf: Any) -> Any:
  return jnp.asarray(array) if isinstance(leaf, jax.Array) else array
