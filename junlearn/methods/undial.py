"""UNDIAL: self-distillation with adjusted logits.

Y. R. Dong, H. Lin, M. Belkin, R. Huerta, I. Vulic, "UNDIAL: Self-Distillation
with Adjusted Logits for Robust Unlearning in Large Language Models", arXiv
2402.10052.

The model is distilled from itself as it was, with the logit of the true token
lowered. The target is fixed, so that the loss is bounded below and what the
model knew of the other tokens is part of it. No retained data are needed.

    t = softmax(z_reference - beta onehot(y))
    L = gamma mean over tokens of -sum_v t_v log p_v + alpha L_retain

Differences from the released code: the mean is over the tokens of answers. The
code averages over prompts and padding too, whose label, -100, counts from the
vocabulary's end, so that token V - 100 is lowered there;
`all_positions=True` does.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
import optax

from junlearn import language, objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.objective import RelativeLoss
from junlearn.transform import Transform

CARD = Card(
  paper="Y. R. Dong et al., 2024, arXiv 2402.10052",
  modality="language",
  reads=("forget",),
  needs_retain=False,
  cost="steps and a second model, the reference",
)

_IGNORED = -100


def distillation(
  model: Model, *, beta: float, all_positions: bool = False
) -> RelativeLoss:
  """Cross-entropy to the reference with lowered logits, `[n]`.

  Args:
    model: of text.
    beta: by how much the logit of the true token is lowered.
    all_positions: average over all positions, as released.
  """

  def loss(params, reference, examples, key=None):
    logits, params = model.apply(params, examples["input"], key)
    old = jax.lax.stop_gradient(model.apply(reference, examples["input"])[0])
    logits, old = language.predictions(logits), language.predictions(old)
    lowered, mask = language.targets(examples)
    size = logits.shape[-1]
    if all_positions:
      lowered = jnp.where(mask, lowered, (size + _IGNORED) % size)
    old = old - beta * jax.nn.one_hot(lowered, size, dtype=old.dtype)
    each = optax.losses.softmax_cross_entropy(logits, jax.nn.softmax(old))
    if all_positions:
      return jnp.mean(each, axis=1), params
    return language.per_token(each, examples), params

  return loss


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 10.0,
  gamma: float = 1.0,
  retain: Retain | None = None,
  all_positions: bool = False,
  **options: Unpack[DescendOptions],
) -> Transform:
  """UNDIAL; reads `forget`, and `retain` where there is a retain term.

  Published setting: beta 3, 10 or 30, learning rate 1e-4, 10 epochs, adapters
  of rank 8.

  Args:
    model: of text.
    optimizer: any optax transformation.
    beta: by how much the logit of the true token is lowered.
    gamma: weight of the forget term.
    retain: a retain term, which the paper does without.
    all_positions: average over all positions, as released.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `beta` is out of range.
  """
  validate.at_least(0, beta=beta)
  forget = distillation(model, beta=beta, all_positions=all_positions)
  total = language.with_retain(
    objective.relative(forget, forget=gamma), model, retain
  )
  return descend(total, optimizer, **options)
