"""Descent on the retained and ascent on the forgotten examples (NegGrad+).

    theta' ~ argmin_theta  a E_{D_r} l(theta, x) - (1 - a) E_{D_f} l(theta, x)

One retain batch and one forget batch (cycled) a step. With `a` near 1 the
retain term keeps the model useful while forget examples are pushed away.
Source: M. Kurmanji et al., "Towards Unbounded Machine Unlearning", arXiv
2302.09880, where it is a baseline.
"""

from collections.abc import Callable
from typing import Unpack

import optax

from junlearn import objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss, cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper="M. Kurmanji et al., 2023, arXiv 2302.09880",
  modality="any",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="steps on two batches",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  alpha: float = 0.95,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """NegGrad+; reads `retain` and `forget`.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    alpha: weight `a` of the retain term, in [0, 1].
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `alpha` is outside [0, 1].
  """
  validate.within("[0, 1]", alpha=alpha)
  return descend(
    objective.weighted(loss(model), retain=alpha, forget=alpha - 1),
    optimizer,
    **options,
  )
