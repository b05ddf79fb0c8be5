"""Fine-tuning on the retained examples (FT): forgetting by interference.

    theta' ~ argmin_theta  mean_{x in D_r} l(theta, x),  from theta

The weakest baseline: nothing pushes the forgotten examples out, and a few
epochs leave forget accuracy and membership signals near the original's.
Published setting: 10 epochs, SGD with learning rate 0.01 (J. Jia et al.,
"Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, released code).
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
  reads=("retain",),
  needs_retain=True,
  cost="steps",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Fine-tuning; reads `retain`.

  Args:
    model: the model to fine-tune.
    optimizer: any optax transformation.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.
  """
  return descend(
    objective.weighted(loss(model), retain=1.0), optimizer, **options
  )
