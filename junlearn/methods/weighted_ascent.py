"""Gradient ascent with token weights: WGA and SatImp.

WGA: Q. Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient
Perspective and Go Beyond", arXiv 2502.19301; SatImp: P. Yang et al., "Exploring
Criteria of Loss Reweighting to Enhance LLM Unlearning", arXiv 2505.11953.

Plain ascent pushes hardest where the model already gives a token no
probability. Weights that fall with the token's own probability leave such
tokens alone (saturation); a second factor spares tokens that are certain
whatever is forgotten (importance). No gradient flows through the weights.

    L_f = -mean over tokens of stop(p^a (1 - p)^b) (-log p)
    L = gamma L_f + alpha L_retain

`WGA` is (a, b) = (1, 0) and `SATIMP` (5, 1) with gamma 0.1:
`transform(model, optimizer, **SATIMP, ...)`.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
import optax

from junlearn import language, objective, validate
from junlearn.descent import DescendOptions, descend
from junlearn.language import Retain
from junlearn.loss import OutputLoss
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper=(
    "Q. Wang et al., 2025, arXiv 2502.19301; P. Yang et al., 2025, arXiv "
    "2505.11953"
  ),
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="steps on two batches",
)

WGA = {"exponent": 1.0, "complement": 0.0, "gamma": 1.0}
SATIMP = {"exponent": 5.0, "complement": 1.0, "gamma": 0.1}


def weighted_nll(*, exponent: float, complement: float) -> OutputLoss:
  """`stop(p^a (1 - p)^b) (-log p)`, averaged as `language.token_nll`."""

  def loss(logits, examples):
    log_probs = language.token_log_probs(logits, examples)
    p = jax.lax.stop_gradient(jnp.exp(log_probs))
    weights = p**exponent * (1 - p) ** complement
    return language.per_token(-weights * log_probs, examples)

  return loss


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  exponent: float = 1.0,
  complement: float = 0.0,
  gamma: float = 1.0,
  retain: Retain | None = language.NLL,
  **options: Unpack[DescendOptions],
) -> Transform:
  """Weighted ascent; reads `forget`, and `retain` for the retain term.

  Published settings: learning rate 1e-5, 5 epochs.

  Args:
    model: of text.
    optimizer: any optax transformation.
    exponent: a, at least 0; with both exponents 0 it is plain ascent.
    complement: b, at least 0.
    gamma: weight of the forget term.
    retain: the retain term.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if an exponent is negative.
  """
  validate.at_least(0, exponent=exponent, complement=complement)
  loss = language.cross_entropy(
    model, weighted_nll(exponent=exponent, complement=complement)
  )
  total = language.with_retain(
    objective.weighted(loss, forget=-gamma), model, retain
  )
  return descend(total, optimizer, **options)
