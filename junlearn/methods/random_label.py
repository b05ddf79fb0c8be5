"""Fine-tuning with random labels on the forgotten examples (RL).

    theta' ~ argmin_theta  mean of l over D_r and { (x, y~) : x in D_f },
    y~ uniform over the classes, by default without the true one

The labels are drawn once, and the union is shuffled together. Source: A.
Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020; released
codes differ on whether the true label may be drawn (Unlearn-Saliency: yes;
AMUN: no) and re-draw labels each epoch or access.
"""

from collections.abc import Callable
from typing import Unpack

import optax

from junlearn import objective
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss, cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.relabel import random_labels, union
from junlearn.transform import Result, Transform, chain

CARD = Card(
  paper="A. Golatkar et al., CVPR 2020",
  modality="classification",
  reads=("forget", "retain"),
  needs_retain=False,
  cost="steps",
)


def relabel(num_classes: int, *, exclude_true: bool = True) -> Transform:
  """Sets `extra` to the retained and the randomly relabeled forget examples.

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
  **options: Unpack[DescendOptions],
) -> Transform:
  """Random labels; reads `forget`, and `retain` if the request has it.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    num_classes: classes to draw labels from.
    exclude_true: never draw an example's true label.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.
  """
  return chain(
    relabel=relabel(num_classes, exclude_true=exclude_true),
    descend=descend(
      objective.weighted(loss(model), extra=1.0), optimizer, **options
    ),
  )
