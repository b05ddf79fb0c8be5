"""IdkNLL: the forgotten prompts are answered by a refusal.

A baseline of P. Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs",
arXiv 2401.06121.

Each forgotten prompt gets an answer such as "I don't know", drawn at random
from a list, and the model is fine-tuned on these pairs and on what is retained.
The loss is bounded below and says what to answer; the true answer is pushed out
only by the refusal.

    L = gamma L_nll(x_f, y_idk) + alpha L_retain

Differences from the released code: TOFU's joins both halves of a batch and
takes one mean over their tokens, so that the weights are those of the lengths
of the answers; `joined=True` does. The refusals are drawn once, with the
examples, and not at each access.
"""

from typing import Unpack

import optax

from junlearn import language, objective
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.relabel import union
from junlearn.transform import Transform

CARD = Card(
  paper="P. Maini et al., 2024, arXiv 2401.06121",
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="steps on two batches",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  gamma: float = 1.0,
  retain: Retain | None = language.NLL,
  joined: bool = False,
  **options: Unpack[DescendOptions],
) -> Transform:
  """IdkNLL; reads `forget` with `alternative`, and `retain`.

  Args:
    model: of text.
    optimizer: any optax transformation.
    gamma: weight of the forget term.
    retain: the retain term.
    joined: one mean over the tokens of both halves of a batch, as TOFU's code
      takes; `gamma` and `retain` then have no place.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `joined` with another `gamma` or `retain` than the default;
      when applied, if the forget examples have no `alternative`.
  """
  if joined and (gamma, retain) != (1.0, language.NLL):
    raise ValueError(
      f"joined is True with gamma {gamma} and retain {retain}; one mean over "
      "all tokens leaves no place for them."
    )
  nll = language.cross_entropy(model)

  def refusal(params, examples, key=None):
    return nll(params, language.alternative(examples), key)

  total = language.with_retain(
    objective.weighted(refusal, forget=gamma), model, retain
  )
  both = objective.weighted(nll, extra=1.0)

  def concatenated(params, batch, **context):
    rows = union(language.alternative(batch.forget), batch.retain)
    return both(params, batch._replace(extra=rows), **context)

  return descend(concatenated if joined else total, optimizer, **options)
