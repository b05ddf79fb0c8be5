"""Gradient ascent held to the reference by KL (KL minimization, GA + KLR).

P. Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", arXiv
2401.06121, where it is a baseline.

Ascent on the forgotten answers is unbounded and would destroy the model. On
retained text, therefore, the next-token distributions are held to those of the
model that the descent began with, over the whole vocabulary and not at the
true token alone.

    L = -gamma L_nll(D_f) + alpha E_{D_r} KL(p_reference || p)

Differences from the released code: KL is averaged over the tokens of answers;
the code averages over prompts and padding too, which
`language.Retain(loss="kl", all_positions=True)` does.
"""

from collections.abc import Callable
from typing import Unpack

import optax

from junlearn import language, objective
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.loss import Loss
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper="P. Maini et al., 2024, arXiv 2401.06121",
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="steps on two batches and a second model, the reference",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  gamma: float = 1.0,
  loss: Callable[[Model], Loss] = language.cross_entropy,
  retain: Retain | None = language.KL,
  **options: Unpack[DescendOptions],
) -> Transform:
  """KL minimization; reads `forget` and `retain`.

  Args:
    model: of text.
    optimizer: any optax transformation.
    gamma: weight of the forget term.
    loss: per-example loss of a model, to be raised.
    retain: the retain term; "nll" makes it gradient difference.
    **options: of `descent.descend`, see `descent.DescendOptions`.
  """
  forget = objective.weighted(loss(model), forget=-gamma)
  return descend(
    language.with_retain(forget, model, retain), optimizer, **options
  )
