"""What a model gives each token of each answer, on the host.

A model runs once over a set of examples; every metric of this package is a
NumPy function of what is stored here. The logits never leave the device.
"""

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import language, tree
from junlearn.audit.outputs import over_rows
from junlearn.model import Model
from junlearn.typing import Examples, Params

# Traced while they are computed, and NumPy arrays from then on.
Array: TypeAlias = Any


class TokenScores(NamedTuple):
  """Scores of tokens 2 to `length` of each row, all `[n, length - 1]`.

  With p the prediction for a token's place, given the true tokens before it:

  Attributes:
    log_prob: s = log p(token), in nats, float64.
    mask: bool, the tokens to predict; only there do the others mean anything.
    correct: bool, whether the token is the arg max of p.
    mean: mu = E_{v~p} log p(v), minus the entropy.
    std: sigma, the standard deviation of log p(v) over v ~ p.
  """

  log_prob: Array
  mask: Array
  correct: Array
  mean: Array
  std: Array


@functools.lru_cache(maxsize=64)
def _forward(model: Model):
  @jax.jit
  def forward(params, examples):
    target, mask = language.targets(examples)
    logits = model.apply(params, examples["input"])[0][:, :-1]
    upcast = np.promote_types(logits.dtype, np.float32)
    log_p = jax.nn.log_softmax(logits.astype(upcast))
    p = jnp.exp(log_p)
    mean = jnp.sum(p * log_p, axis=-1, keepdims=True)
    variance = jnp.sum(p * jnp.square(log_p - mean), axis=-1)
    chosen = jnp.take_along_axis(log_p, target[..., None], axis=-1)
    return TokenScores(
      log_prob=chosen[..., 0],
      mask=mask,
      correct=jnp.argmax(log_p, axis=-1) == target,
      mean=mean[..., 0],
      std=jnp.sqrt(variance),
    )

  return forward


def collect(
  model: Model, params: Params, examples: Examples, *, batch_size: int = 32
) -> TokenScores:
  """Scores of all rows, in evaluation mode, on all local devices.

  Args:
    model: of text.
    params: its params; may be divided over the local devices.
    examples: `n` examples of text, one answer a row.
    batch_size: rows at a time, rounded up to a multiple of the devices. They
      hold its logits, `[batch_size, length, vocabulary]` in single precision.

  Raises:
    ValueError: if there are no examples, or a token to predict has a
      log-probability that is not finite: what a broken model cannot generate
      is not forgotten.
  """
  n = tree.size(examples)
  if n == 0:
    raise ValueError("collect: examples is empty; at least one is needed.")
  needed = {name: examples[name] for name in ("input", "mask")}
  scores = over_rows(_forward(model), params, needed, batch_size=batch_size)
  broken = np.any(scores.mask & ~np.isfinite(scores.log_prob), axis=1)
  if broken.any():
    raise ValueError(
      f"collect: params give {broken.sum()} of {n} answers a log-probability "
      "that is not finite; a model to be measured must be finite."
    )
  upcast = ("log_prob", "mean", "std")
  return scores._replace(
    **{name: getattr(scores, name).astype(np.float64) for name in upcast}
  )


def without_end(scores: TokenScores) -> TokenScores:
  """The scores with the end token of each row left out, see `drop_end`."""
  return scores._replace(mask=drop_end(scores.mask))


def drop_end(mask: Any) -> np.ndarray:
  """The mask with the last token to predict of each row left out.

  That is the end token, which the data append to every answer. Probabilities
  and losses count it; exact memorization, extraction strength and the
  membership attacks do not.

  Args:
    mask: of examples or scores, bool `[n, t]`.

  Raises:
    ValueError: if an answer has no other token.

  Source: the convention of OpenUnlearning (arXiv 2506.12618).
  """
  mask = np.asarray(mask, bool)
  last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
  kept = mask & (np.arange(mask.shape[1]) != last[:, None])
  empty = ~kept.any(axis=1)
  if empty.any():
    raise ValueError(
      f"mask marks nothing before the end token in {empty.sum()} of "
      f"{len(mask)} rows; every answer needs one token."
    )
  return kept


def lengths(scores: TokenScores) -> np.ndarray:
  """|y|, the tokens to predict in each row, `[n]`.

  Raises:
    ValueError: if a row has none.
  """
  counts = np.sum(scores.mask, axis=1)
  if not counts.all():
    raise ValueError(
      f"scores has {np.sum(counts == 0)} of {len(counts)} rows without a token "
      "to predict; each needs one."
    )
  return counts
