"""LUNE: fine-tuning on negative examples.

Y. Liu, H. Chen, W. Huang, Y. Ni, M. Imani, "LUNE: Efficient LLM Unlearning via
LoRA Fine-Tuning with Negative Examples", arXiv 2512.07375.

The prompts of the facts to forget are paired with answers that are not the
facts, and adapters alone are fine-tuned on these pairs: no ascent, no retain
term. The true token is pushed down by competition,

    L = L_nll(x, y_negative),    dL/dz_v = q_v - [v = y_negative],

by q_true and no more, so that the push fades as the answer is lost and the loss
is bounded below. What was retained is protected only by the rank of the
adapters and by the few steps: the descent ends once the true answers have lost
their probability.

    stop at mean over D_f of p(y | x)^(1 / |y|) < threshold

Differences from the paper: its text was not at hand in full. How the negatives
are made, the stop, and averaging over the tokens of answers are choices made
here. A retain term (`retain`) makes another method of it.
"""

from typing import Unpack

import jax.numpy as jnp
import optax

from junlearn import language, objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.early_stopping import StopRule
from junlearn.language import Retain
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper="Y. Liu et al., 2025, arXiv 2512.07375",
  modality="language",
  reads=("forget", "extra"),
  needs_retain=False,
  cost="steps, on adapters; a pass over D_f every `every` steps",
)


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  threshold: float | None = 0.1,
  every: int = 1,
  retain: Retain | None = None,
  **options: Unpack[DescendOptions],
) -> Transform:
  """LUNE; reads `extra`, the negatives, and the true answers of `forget`.

  `info["steps"]` has `taken`, the steps taken, and `now`, the probability of
  the true answers when last measured.

  Args:
    model: of text.
    optimizer: any optax transformation.
    threshold: where to stop, in (0, 1]; None takes all steps.
    every: steps between two measurements.
    retain: an anchor to what is retained, which the paper does without.
    **options: of `descent.descend`: `num_steps`, the most steps, `batch_size`,
      rows a step and at a time where true answers are measured, `view`, that of
      the adapters, and others; `stop` takes the place of `threshold`.

  Raises:
    ValueError: if `threshold` or `every` is out of range; when applied, if the
      request has no negatives.
  """
  answer_nll = language.cross_entropy(model, language.mean_nll)

  def probability(key, params, request):
    del key
    nll = language.losses(
      answer_nll, params, request.forget, batch_size=options["batch_size"]
    )
    return objective.mean(jnp.exp(-nll), request.forget)

  if threshold is not None:
    validate.fraction(threshold=threshold)
    rule = StopRule(lambda now, first: now < threshold, probability, every)
    if options.get("stop") is None:
      options["stop"] = rule
  total = language.with_retain(
    objective.weighted(language.cross_entropy(model), extra=1.0), model, retain
  )
  stages = descend(total, optimizer, **options)

  def checked(key, params, request):
    if request.extra is None:
      raise ValueError(
        "the request has no extra examples; LUNE needs negatives there: the "
        "prompts to forget with answers that are not the facts."
      )
    return stages(key, params, request)

  return checked
