"""Training sets made from the parts of a request, and new labels for them."""

from typing import Any

import jax
import jax.numpy as jnp

from junlearn import tree


def random_labels(
  key: jax.Array,
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
  if num_classes <= len(exclude):
    raise ValueError(
      f"random_labels: num_classes is {num_classes}; with {len(exclude)} "
      f"labels excluded it must be at least {len(exclude) + 1}."
    )
  logits = jnp.zeros((labels.shape[0], num_classes))
  for excluded in exclude:
    banned = jax.nn.one_hot(excluded, num_classes, dtype=bool)
    logits = jnp.where(banned, -jnp.inf, logits)
  return jax.random.categorical(key, logits).astype(labels.dtype)


def union(*parts: Any) -> Any:
  """The examples of all parts that are not None, joined along axis 0.

  Dicts keep the keys that all parts have; where one part has `weight`, the
  others get ones.

  Raises:
    ValueError: if every part is None.
  """
  parts = [part for part in parts if part is not None]
  if not parts:
    raise ValueError("union: every part is None; at least one is needed.")
  if not all(isinstance(part, dict) for part in parts):
    return tree.concatenate(*parts)
  weights = [part["weight"] for part in parts if "weight" in part]
  if weights:
    parts = [
      {"weight": jnp.ones(tree.size(part), weights[0].dtype)} | part
      for part in parts
    ]
  shared = set.intersection(*(set(part) for part in parts))
  return tree.concatenate(*({k: part[k] for k in shared} for part in parts))
