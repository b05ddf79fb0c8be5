"""Negation of the task vector of the forgotten examples.

G. Ilharco et al., "Editing Models with Task Arithmetic", arXiv 2212.04089; the
setting is that of W. Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation
for Language Models", arXiv 2407.06460.

Fine-tuning on the forgotten examples moves the params along what they teach;
one goes from the start as far in the opposite direction. There is no ascent,
so the loss on the way is bounded; whatever else lies along that direction is
lost with it.

    theta' = theta - a (theta_ft - theta),    theta_ft: fine-tuned on D_f

Batch statistics stay those of the start. Of adapters the factors are negated,
not their product.
"""

from collections.abc import Callable
from typing import Unpack

import jax
import optax

from junlearn import language, objective, tree, validate
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform
from junlearn.view import full

CARD = Card(
  paper=(
    "G. Ilharco et al., 2022, arXiv 2212.04089; W. Shi et al., 2024, arXiv "
    "2407.06460"
  ),
  modality="language",
  reads=("forget",),
  needs_retain=False,
  cost="steps",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  scale: float = 5.0,
  loss: Callable[[Model], Loss] = language.cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Task-vector negation; reads `forget`.

  Published setting: a = 5, learning rate 1e-5, 10 epochs.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation, for the fine-tuning.
    scale: a, how far to go.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `scale` is out of range.
  """
  validate.within("(-inf, inf)", scale=scale)
  view = options.get("view") or full()
  finetune = descend(
    objective.weighted(loss(model), forget=1.0), optimizer, **options
  )

  def negate(key, params, request):
    result = finetune(key, params, request)
    start, fixed = view.split(params)
    moved = jax.tree.map(
      lambda old, new: old - scale * (new - old),
      start,
      view.split(result.params)[0],
    )
    params = view.merge(moved, fixed)
    finite = result.info["finite"] & tree.all_finite(params)
    return result._replace(
      params=params, info={**result.info, "finite": finite}
    )

  return negate
