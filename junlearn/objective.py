"""What a descent minimizes.

    Objective: (params, batch: Request, *, reference, key)
               -> (loss, (params, terms))

`reference` is what the descent began with; `terms` are scalars for `info`.
The returned params carry refreshed batch statistics.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from junlearn import validate
from junlearn.loss import Loss
from junlearn.transform import Request, stage_key
from junlearn.typing import Examples, Params

Objective = Callable[..., tuple[jax.Array, tuple[Params, dict[str, jax.Array]]]]

# A loss that also reads what the descent began with:
# (params, reference, examples, key=None) -> ([n] losses, params).
RelativeLoss = Callable[..., tuple[jax.Array, Params]]


def mean(losses: jax.Array, examples: Examples) -> jax.Array:
  """Mean of `[n]` losses over the examples present (`weight` 1, not 0).

  Raises:
    ValueError: if the weights are not one a loss.
  """
  if isinstance(examples, dict) and "weight" in examples:
    if examples["weight"].shape != losses.shape:
      raise ValueError(
        f"weight has shape {examples['weight'].shape}; it must be that of the "
        f"losses, {losses.shape}."
      )
    weight = examples["weight"].astype(losses.dtype)
    return jnp.sum(weight * losses) / jnp.maximum(jnp.sum(weight), 1)
  return jnp.mean(losses)


def risk(
  loss: Loss,
  *,
  l2: float,
  scale: Callable[[Examples], jax.Array | float] = lambda examples: 1.0,
) -> Callable[[Params, Examples], jax.Array]:
  """The regularized empirical risk, `(params, examples) -> scalar`.

      F(theta) = s mean_x loss(theta, x) + (l2 / 2) |theta|^2

  in evaluation mode. The penalty is on all leaves, biases included: with a
  convex loss F is `l2`-strongly convex. Without examples it alone is left.

  Args:
    loss: per-example loss.
    l2: strength of the penalty, at least 0.
    scale: `examples -> s`, at least 0.

  Raises:
    ValueError: if `l2` is out of range.
  """
  validate.at_least(0, l2=l2)

  def value(params, examples):
    losses, _ = loss(params, examples)
    penalty = optax.tree.norm(params, squared=True).astype(losses.dtype)
    factor = jnp.asarray(scale(examples)).astype(losses.dtype)
    half = jnp.asarray(l2 / 2, losses.dtype)
    return factor * mean(losses, examples) + half * penalty

  return value


def weighted(loss: Loss, **weights: float) -> Objective:
  """A weighted sum of mean losses over parts of the request.

      L(theta) = sum_part weight_part * mean_{x in part} loss(theta, x)

  Args:
    loss: per-example loss.
    **weights: a weight for each of `forget`, `retain`, `extra` that takes
      part; negative weights ascend.

  Raises:
    ValueError: if there is no part, or a name is not a part of a request; and
      when applied, if the request lacks a part.
  """

  def absolute(params, reference, examples, key=None):
    del reference
    return loss(params, examples, key)

  return relative(absolute, **weights)


def relative(loss: RelativeLoss, **weights: float) -> Objective:
  """As `weighted`, of a loss that also reads the reference.

  Args:
    loss: `(params, reference, examples, key=None) -> ([n] losses, params)`.
    **weights: as for `weighted`.

  Raises:
    ValueError: as `weighted`.
  """
  if not weights or not set(weights) <= set(Request._fields):
    raise ValueError(
      f"weighted: parts are {sorted(weights)}; allowed are one or more of "
      f"{', '.join(Request._fields)}."
    )

  def objective(params, batch, *, reference, key):
    value: jax.Array | float = 0.0
    terms: dict[str, jax.Array] = {}
    for part, weight in weights.items():
      examples = getattr(batch, part)
      if examples is None:
        raise ValueError(f"weighted: the request has no {part} examples.")
      losses, params = loss(params, reference, examples, stage_key(key, part))
      terms[part] = mean(losses, examples)
      value += weight * terms[part]
    return value, (params, terms)

  return objective


def total(*objectives: Objective) -> Objective:
  """The sum of objectives.

  Args:
    *objectives: at least one; terms of the same name are those of the last.

  Raises:
    ValueError: if there is none.
  """
  if not objectives:
    raise ValueError("total: no objectives were given; at least one is needed.")

  def objective(params, batch, *, reference, key):
    value: jax.Array | float = 0.0
    terms: dict[str, jax.Array] = {}
    for term in objectives:
      loss, (params, found) = term(params, batch, reference=reference, key=key)
      value, terms = value + loss, terms | found
    return value, (params, terms)

  return objective
