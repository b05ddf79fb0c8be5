"""Fine-tuning on the retained examples (FT): forgetting by interference.

    theta' ~ argmin_theta  mean_{x in D_r} l(theta, x),  from theta

The weakest baseline: nothing pushes the forgotten examples out, and a few
epochs leave forget accuracy and membership signals near the original's.
Published setting: 10 epochs, SGD with learning rate 0.01 (J. Jia et al.,
"Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, released code).
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
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Any,
) -> Transform:
  """Fine-tuning; reads `retain`.

  Args:
    model: the model to fine-tune.
    optimizer: any optax transformation.
    loss: per-example loss of a model.
    **options: `num_steps`, `batch_size`, `view`, `loop` of `descent.descend`.
  """
  return descend(
    objective.weighted(loss(model), retain=1.0), optimizer, **options
  )
