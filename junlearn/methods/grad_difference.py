"""Descent on the retained and ascent on the forgotten examples (NegGrad+).

    theta' ~ argmin_theta  a E_{D_r} l(theta, x) - (1 - a) E_{D_f} l(theta, x)

One retain batch and one forget batch (cycled) a step. With `a` near 1 the
retain term keeps the model useful while forget examples are pushed away.
Source: M. Kurmanji et al., "Towards Unbounded Machine Unlearning", arXiv
2302.09880, where it is a baseline.
"""

from collections.abc import Callable
from typing import Any

import optax

from junlearn import objective
from junlearn.descent import descend
from junlearn.loss import Loss, cross_entropy
from junlearn.model import Model
from junlearn.transform import Transform


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  alpha: float = 0.95,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Any,
) -> Transform:
  """NegGrad+; reads `retain` and `forget`.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    alpha: weight `a` of the retain term, in [0, 1].
    loss: per-example loss of a model.
    **options: `num_steps`, `batch_size` (of each part), `view`, `loop` of
      `descent.descend`.

  Raises:
    ValueError: if `alpha` is outside [0, 1].
  """
  if not 0 <= alpha <= 1:
    raise ValueError(
      f"grad_difference: alpha is {alpha}; it must be in [0, 1]."
    )
  return descend(
    objective.weighted(loss(model), retain=alpha, forget=alpha - 1),
    optimizer,
    **options,
  )
