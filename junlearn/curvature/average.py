"""Weighted means over examples that are too many for one batch or device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from junlearn import tree, validate
from junlearn.typing import Batch, Examples, PyTree

AxisName = str | tuple[str, ...] | None


def average(
  total: Callable[[Batch, jax.Array], PyTree],
  examples: Examples,
  *,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> PyTree:
  """Mean over the examples of what `total` sums over a batch.

      sum_i w_i f_i / max(sum_i w_i, 1),    total(batch, w) = sum_batch w_i f_i

  As `objective.mean`, for pytrees. The batches are read in a scan that keeps
  one sum; the last batch is filled up with rows of weight 0.

  Args:
    total: `(batch, weight [b]) -> pytree`, linear in the weights.
    examples: `n` examples; a dict may hold `weight` `[n]`, any non-negative
      reals. Without it every example has weight 1.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axis or axes (of `vmap` or `pmap`) over which the
      examples are divided; sums and weights are then added up over it.

  Raises:
    ValueError: if there are no examples, or `batch_size` is below 1.
  """
  n = tree.size(examples)
  if n == 0:
    raise ValueError("average: examples is empty; at least one is needed.")
  if batch_size is not None:
    validate.at_least(1, batch_size=batch_size)
  weight = weights(examples)
  if batch_size is None or batch_size >= n:
    sums = total(examples, weight)
  else:
    sums = _scan(total, examples, weight, batch_size)
  mass = jnp.sum(weight)
  if axis_name is not None:
    sums, mass = jax.lax.psum((sums, mass), axis_name)
  mass = jnp.maximum(mass, 1)
  return jax.tree.map(lambda leaf: leaf / mass.astype(leaf.dtype), sums)


def weights(examples: Examples) -> jax.Array:
  """The examples' weights `[n]`: their `weight`, or ones."""
  ones = jnp.ones(tree.size(examples))
  if isinstance(examples, dict) and "weight" in examples:
    return jnp.asarray(examples["weight"]).astype(ones.dtype)
  return ones


def _scan(total, examples, weight, batch_size):
  n = weight.shape[0]
  rows = jnp.arange(-(-n // batch_size) * batch_size).reshape(-1, batch_size)

  def part(row):
    present = (row < n).astype(weight.dtype)
    row = jnp.minimum(row, n - 1)
    return total(tree.take(examples, row), present * weight[row])

  zeros = optax.tree.zeros_like(jax.eval_shape(part, rows[0]))
  return jax.lax.scan(
    lambda sums, row: (optax.tree.add(sums, part(row)), None), zeros, rows
  )[0]
