"""Training sets made from the parts of a request, and new labels for them."""

import jax
import jax.numpy as jnp

from junlearn import tree, validate
from junlearn.typing import Examples, Key


def random_labels(
  key: Key,
  labels: jax.Array,
  num_classes: int,
  *,
  exclude: tuple[jax.Array, ...] = (),
) -> jax.Array:
  """Labels `[n]` uniform over the classes not excluded for each example.

  Args:
    key: PRNG key.
    labels: integers `[n]`; gives the number and dtype.
    num_classes: classes to draw from.
    exclude: arrays `[n]` of labels that the example must not get, such as the
      true one.

  Raises:
    ValueError: if the exclusions could leave no class.
  """
  validate.at_least(len(exclude) + 1, num_classes=num_classes)
  logits = jnp.zeros((labels.shape[0], num_classes))
  for excluded in exclude:
    banned = jax.nn.one_hot(excluded, num_classes, dtype=bool)
    logits = jnp.where(banned, -jnp.inf, logits)
  return jax.random.categorical(key, logits).astype(labels.dtype)


def union(*parts: Examples) -> Examples:
  """The examples of all parts that are not None, joined along axis 0.

  Dicts keep the keys that all parts have; where one part has `weight`, the
  others get ones.

  Raises:
    ValueError: if every part is None.
  """
  present = [part for part in parts if part is not None]
  if not present:
    raise ValueError("union: every part is None; at least one is needed.")
  if not all(isinstance(part, dict) for part in present):
    return tree.concatenate(*present)
  weights = [part["weight"] for part in present if "weight" in part]
  if weights:
    present = [
      {"weight": jnp.ones(tree.size(part), weights[0].dtype)} | part
      for part in present
    ]
  common = set.intersection(*(set(part) for part in present))
  return tree.concatenate(*({k: part[k] for k in common} for part in present))
