"""Gradient ascent on the forgotten examples (GA, NegGrad).

    theta' ~ argmin_theta  -mean_{x in D_f} l(theta, x),  from theta

Needs no retained data. The loss is unbounded, so that too many steps or too
large a rate destroys the model: clip gradients in the optimizer and keep the
budget small. Published setting: 5 epochs, SGD with learning rate 1e-4 (J. Jia
et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
released code).
"""

from collections.abc import Callable
from typing import Unpack

import optax

from junlearn import objective
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss, cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper="J. Jia et al., NeurIPS 2023",
  modality="any",
  reads=("forget",),
  needs_retain=False,
  cost="steps",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Gradient ascent; reads `forget`.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.
  """
  return descend(
    objective.weighted(loss(model), forget=-1.0), optimizer, **options
  )
