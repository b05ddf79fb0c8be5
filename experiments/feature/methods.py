"""Federated training, and the methods that make it forget a feature."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from experiments.feature.recipe import Recipe
from junlearn import descent
from junlearn.clients import rounds
from junlearn.loop import Loop
from junlearn.methods import ferrari, finetune
from junlearn.model import Model
from junlearn.transform import Transform


class Method(NamedTuple):
  """A method as the experiments call it.

  Attributes:
    make: `(model, recipe, rate, num_steps=, loop=, **options) -> Transform`.
    steps: `recipe -> steps` that it takes at most; rounds if it is federated.
    federated: whether the clients that do not ask train together, each from a
      copy of the model; otherwise the one that asks descends on its own inputs.
  """

  make: Callable[..., Transform]
  steps: Callable[[Recipe], int]
  federated: bool = False


def federated(
  model: Model, recipe: Recipe, rate: float, *, num_steps: int, loop: Loop
) -> Transform:
  """Rounds of federated averaging, over copies of the params."""
  local = finetune.transform(
    model,
    optax.sgd(rate, momentum=recipe.momentum),
    num_steps=recipe.local_steps,
    batch_size=recipe.batch_size,
  )
  rule = rounds.descent(
    rounds.federated_averaging(local),
    num_rounds=num_steps,
    read=lambda request: request,
  )
  return descent.run(rule, loop)


def descending(
  model: Model, recipe: Recipe, rate: float, **options: Any
) -> Transform:
  """Ferrari; the rate is part of the state, so that all share one program."""
  optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
  return ferrari.transform(
    model,
    optimizer,
    **{
      "num_draws": recipe.num_draws,
      "batch_size": recipe.batch_size,
      "check_every": recipe.check_every,
      "stop_gradient": recipe.stop_gradient,
      **options,
    },
  )


METHODS: Mapping[str, Method] = {
  "ferrari": Method(descending, lambda recipe: recipe.unlearn_steps),
  "finetune": Method(
    federated, lambda recipe: recipe.unlearn_rounds, federated=True
  ),
}
