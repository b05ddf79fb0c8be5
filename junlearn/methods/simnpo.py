"""SimNPO: negative preference optimization without a reference.

C. Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization
for LLM Unlearning", arXiv 2410.07163.

NPO measures each answer against the reference model, which favors long answers
and those that were easy to begin with. SimNPO takes the mean log-probability of
an answer's tokens against a constant margin instead. The weight of an example
then fades as its answer becomes unlikely as such, and long answers weigh less.

    L_f = -(2 / beta) E log sigmoid(beta (l - delta)),    l = -S / |y|
    dL_f = -E w dl,    w = 2 q / (1 + q),    q = (e^delta p^(1 / |y|))^beta
    L = gamma L_f + alpha L_retain

The margin is inside the bracket, as in the released code; a formula in print
subtracts delta after multiplying by beta. Its default is 0 in both. For MUSE
the released code takes raw logits in place of S / |y|, which is not done here.
"""

import functools
from collections.abc import Callable
from typing import Unpack

import optax

from junlearn import language, objective
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.loss import Loss
from junlearn.methods.card import Card
from junlearn.methods.npo import preference
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper="C. Fan et al., 2024, arXiv 2410.07163",
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="steps on two batches",
)

answer_loss = functools.partial(
  language.cross_entropy, output_loss=language.mean_nll
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 4.5,
  delta: float = 0.0,
  gamma: float = 0.125,
  loss: Callable[[Model], Loss] = answer_loss,
  retain: Retain | None = language.NLL,
  **options: Unpack[DescendOptions],
) -> Transform:
  """SimNPO; reads `forget`, and `retain` for the retain term.

  Published setting: beta 4.5, gamma 0.125 for a tenth of TOFU and 2.5, 0.1375
  for a twentieth; AdamW with learning rate 1e-5, 10 epochs.

  Args:
    model: the model to unlearn from.
    optimizer: any optax transformation.
    beta: inverse temperature, above 0.
    delta: the margin, in nats a token.
    gamma: weight of the forget term.
    loss: per-example loss of a model, to be raised; by default the mean over
      an answer's tokens.
    retain: the retain term of a model of text; None for other models.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `beta` is out of range.
  """
  each, prefer = loss(model), preference(beta)

  def forget(params, examples, key=None):
    losses, params = each(params, examples, key)
    return prefer(losses - delta), params

  total = language.with_retain(
    objective.weighted(forget, forget=gamma), model, retain
  )
  return descend(total, optimizer, **options)
