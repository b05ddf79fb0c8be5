"""Retraining from scratch without the forgotten examples: the reference.

    theta' ~ argmin_theta  mean_{x in D_r} l(theta, x),  from a fresh start

Everything that an unlearning method gives up or leaves behind is measured
against it.
"""

from collections.abc import Callable
from typing import Unpack

import jax
import optax

from junlearn import objective
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss, cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Result, Transform, chain

CARD = Card(
  paper="",
  modality="any",
  reads=("retain",),
  needs_retain=True,
  cost="a training",
  guarantee="exact",
)


def initialize(model: Model) -> Transform:
  """Replaces the params by fresh ones; reads only the retain inputs' shape."""

  def transform(key, params, request):
    del params
    one = jax.tree.map(lambda leaf: leaf[:1], request.retain["input"])
    fresh = model.init(key, one)
    return Result(fresh, request, {})

  return transform


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Retraining; reads `retain`, and nothing of the params given.

  Args:
    model: its `init` draws the fresh params from the stage's key.
    optimizer: as for the original training.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`; the sound
      choice is that of the original training.
  """
  return chain(
    initialize=initialize(model),
    descend=descend(
      objective.weighted(loss(model), retain=1.0), optimizer, **options
    ),
  )
