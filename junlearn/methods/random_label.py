"""Fine-tuning with random labels on the forgotten examples (RL).

    theta' ~ argmin_theta  mean of l over D_r and { (x, y~) : x in D_f },
    y~ uniform over the classes, by default without the true one

The labels are drawn once, and the union is shuffled together. Source: A.
Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020; released
codes differ on whether the true label may be drawn (Unlearn-Saliency: yes;
AMUN: no) and re-draw labels each epoch or access.
"""

from collections.abc import Callable
from typing import Any

import optax

from junlearn import objective
from junlearn.descent import descend
from junlearn.loss import Loss, cross_entropy
from junlearn.model import Model
from junlearn.relabel import random_labels, union
from junlearn.transform import Result, Transform, chain


def relabel(num_classes: int, *, exclude_true: bool = True) -> Transform:
  """Sets `extra` to the retained and the randomly relabelled forget examples.

  Args:
    num_classes: classes to draw from.
    exclude_true: never draw an example's true label.
  """

  def transform(key, params, request):
    labels = request.forget["label"]
    exclude = (labels,) if exclude_true else ()
    drawn = random_labels(key, labels, num_classes, exclude=exclude)
    extra = union(request.retain, {**request.forget, "label": drawn})
    return Result(params, request._replace(extra=extra), {})

  return transform


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  num_classes: int,
  exclude_true: bool = True,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Any,
) -> Transform:
  """Random labels; reads `forget`, and `retain` if the request has it.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    num_classes: classes to draw labels from.
    exclude_true: never draw an example's true label.
    loss: per-example loss of a model.
    **options: `num_steps`, `batch_size`, `view`, `loop` of `descent.descend`.
  """
  return chain(
    relabel=relabel(num_classes, exclude_true=exclude_true),
    descend=descend(
      objective.weighted(loss(model), extra=1.0), optimizer, **options
    ),
  )
