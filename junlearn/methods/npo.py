"""NPO: negative preference optimization.

R. Zhang, L. Lin, Y. Bai, S. Mei, "Negative Preference Optimization: From
Catastrophic Collapse to Effective Unlearning", arXiv 2404.05868.

The forgotten answers are the dispreferred half of a preference loss whose
preferred half is missing. Its gradient is that of gradient ascent times a
weight that is 1 at the reference and fades as an example becomes less likely
than it was there, so that forgetting slows down by itself and the loss is
bounded below.

    L_f = -(2 / beta) E log sigmoid(beta (l - l_ref)),    l = -S
    dL_f = -E w dl,    w = 2 p^beta / (p^beta + p_ref^beta),    p = exp(-l)
    L = gamma L_f + alpha L_retain

`beta -> 0` gives gradient ascent. `l_ref` is computed once, before the descent.

Differences from the released code: its MUSE scripts take log sigmoid of raw
logits, averaged over the vocabulary; here, as in the paper, there is one term
for a sequence. S is a sum over the answer, so that beta must suit its length:
0.1 for answers of some 40 tokens, 0.5 to 2 for a few.
"""

import functools
from collections.abc import Callable
from typing import Unpack

import jax
import optax

from junlearn import language, objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.loss import Loss
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Result, Transform, chain

CARD = Card(
  paper="R. Zhang et al., 2024, arXiv 2404.05868",
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="a pass over D_f, then steps on two batches",
)

sequence_loss = functools.partial(
  language.cross_entropy, output_loss=language.sequence_nll
)


def preference(beta: float) -> Callable[[jax.Array], jax.Array]:
  """The loss `m -> -(2 / beta) log sigmoid(beta m)` of margins, at least 0.

  Raises:
    ValueError: if `beta` is out of range.
  """
  validate.positive(beta=beta)
  return lambda margins: -2 / beta * jax.nn.log_sigmoid(beta * margins)


def remember(loss: Loss, *, batch_size: int) -> Transform:
  """Sets `extra` to the forget examples with their present loss, `reference`.

  Args:
    loss: of each example by itself.
    batch_size: examples at a time.
  """

  def transform(key, params, request):
    del key
    extra = language.with_reference(
      loss, params, request.forget, batch_size=batch_size
    )
    return Result(params, request._replace(extra=extra), {})

  return transform


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 0.1,
  gamma: float = 1.0,
  loss: Callable[[Model], Loss] = sequence_loss,
  retain: Retain | None = language.NLL,
  **options: Unpack[DescendOptions],
) -> Transform:
  """NPO; reads `forget`, and `retain` for the retain term.

  Published setting: beta 0.1, AdamW with learning rate 1e-5, 10 epochs, batch
  32.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    beta: inverse temperature, above 0.
    gamma: weight of the forget term.
    loss: per-example loss of a model, to be raised; by default `-S` of text.
    retain: the retain term of a model of text; None for other models.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `beta` or `gamma` is out of range.
  """
  validate.at_least(0, gamma=gamma)
  each, prefer = loss(model), preference(beta)

  def forget(params, examples, key=None):
    losses, params = each(params, examples, key)
    return prefer(losses - examples["reference"]), params

  total = language.with_retain(
    objective.weighted(forget, extra=gamma), model, retain
  )
  stage = descend(total, optimizer, **options)
  return chain(
    reference=remember(each, batch_size=options["batch_size"]), descend=stage
  )
