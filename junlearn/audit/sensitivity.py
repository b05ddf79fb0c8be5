"""What is left of a feature: sensitivity, backdoors, binary attributes.

The numbers are means over examples. Sensitivity on logits grows with their
norm, so that scaling all logits down lowers it and forgets nothing: read it
beside the two forms that do not, on probabilities and relative to the norm.
"""

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from junlearn import sensitivity, validate
from junlearn.audit import signals
from junlearn.model import Model
from junlearn.typing import Inputs, Key, Params

Outputs = Literal["logits", "probabilities", "relative"]
_OUTPUTS = get_args(Outputs)


@functools.lru_cache(maxsize=64)
def _draw(model: Model, of: str, sigma: tuple[float, float]):
  """One perturbation's ratio for each example `[n]`."""

  @jax.jit
  def draw(key, params, inputs, mask):
    delta = sensitivity.masked_gaussian(key, mask, num_draws=1, sigma=sigma)
    clean, moved = (
      model.apply(params, x)[0] for x in (inputs, inputs + delta[0])
    )
    if of == "probabilities":
      clean, moved = jax.nn.softmax(clean), jax.nn.softmax(moved)
    ratio = sensitivity.ratios(clean, moved[None], delta)[0]
    return ratio / sensitivity.norm(clean, 1) if of == "relative" else ratio

  return draw


def feature_sensitivity(
  key: Key,
  model: Model,
  params: Params,
  inputs: Inputs,
  mask: Any,
  *,
  num_draws: int = 20,
  sigma: tuple[float, float] = (0.05, 1.0),
  of: Outputs = "logits",
) -> float:
  """Feature sensitivity, E_x E_delta |f(x) - f(x + delta)| / |delta|.

  Examples with an empty mask are left out.

  Args:
    key: PRNG key.
    model: its outputs are logits `[n, classes]`.
    params: its params.
    inputs: `[n, ...]`.
    mask: where the feature is, see `sensitivity.masks`.
    num_draws: perturbations of every example.
    sigma: least and greatest scale of a perturbation.
    of: what f is: the logits, the probabilities, or the logits divided by
      |f(x)| ("relative").

  Returns:
    A number of at least 0.

  Raises:
    ValueError: if an argument is out of range, the mask has the wrong shape,
      or all masks are empty.

  Source: `junlearn.sensitivity`.
  """
  validate.one_of(_OUTPUTS, of=of)
  validate.at_least(1, num_draws=num_draws)
  sensitivity.check_sigma(sigma)
  inputs, mask = _marked(inputs, mask)
  draw = _draw(model, of, tuple(sigma))
  keys = jax.random.split(key, num_draws)
  return float(np.mean([draw(k, params, inputs, mask).mean() for k in keys]))


def _marked(inputs, mask):
  """The examples whose mask marks something, and their masks."""
  inputs = jnp.asarray(inputs)
  mask = sensitivity.masks(mask, inputs)
  rows = np.flatnonzero(np.asarray(mask).reshape(len(inputs), -1).any(axis=1))
  if not rows.size:
    raise ValueError("mask is empty; it must mark the feature of one example.")
  return inputs[rows], mask[rows]


def attack_success(
  logits: ArrayLike, labels: ArrayLike, *, target: int
) -> float:
  """Fraction of stamped inputs that are classified as the backdoor's target.

  Inputs whose true label is the target are left out: a model without any
  backdoor classifies them so.

  Args:
    logits: of the stamped inputs `[n, classes]`.
    labels: their true labels `[n]`.
    target: of the backdoor.

  Raises:
    ValueError: if every input has the target's label.
  """
  logits, labels = signals.as_logits(logits, labels)
  others = labels != target
  if not others.any():
    raise ValueError(
      f"target is {target}, the label of every example; others are needed."
    )
  return float(np.mean(logits[others].argmax(-1) == target))


def flip_rate(logits: ArrayLike, flipped: ArrayLike) -> float:
  """Fraction of inputs whose prediction changes with their attribute.

  Args:
    logits: `[n, classes]`.
    flipped: of the same inputs with the other value of the attribute.
  """
  predicted = np.argmax(logits, -1)
  return float(np.mean(predicted != np.argmax(flipped, -1)))


def inversion_success(
  logits: ArrayLike, flipped: ArrayLike, labels: ArrayLike
) -> float:
  """Fraction of attributes that model inversion guesses right.

  The attacker knows all of an example but its binary attribute, and guesses
  the value under which its true label is the likelier. A tie, as of a model
  that ignores the attribute, counts as half; chance for an attacker who knows
  how the values are distributed is the fraction of the more frequent one.

  Args:
    logits: of the inputs as they are `[n, classes]`.
    flipped: of the same inputs with the other value.
    labels: true labels `[n]`.
  """
  logits, labels = signals.as_logits(logits, labels)
  flipped, _ = signals.as_logits(flipped, labels, "flipped")
  rows = np.arange(len(labels))
  own, other = (
    special.log_softmax(z, -1)[rows, labels] for z in (logits, flipped)
  )
  return float(np.mean((own > other) + 0.5 * (own == other)))
