"""Per-example signals of a classifier, the raw material of attacks.

A signal maps logits `[..., n, classes]` and labels `[n]` to float64 values
`[..., n]`; leading axes are models. Softmax signals are computed from the
one-vs-rest log-odds

    phi_i = log( p_i / (1 - p_i) ) = z_i - logsumexp_{j != i} z_j,

with p = sigmoid(phi) and -log p = softplus(-phi), so that none of them loses
digits or overflows where p is close to 0 or to 1: memorized examples live
there. They do not change when a constant is added to the logits.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from junlearn import validate

# The truncated exponential of `taylor_softmargin` is held at or above this.
TAYLOR_FLOOR = 1e-3


def as_logits(
  logits: ArrayLike, labels: ArrayLike, name: str = "logits"
) -> tuple[np.ndarray, np.ndarray]:
  """Checked logits in float64, and checked labels.

  Args:
    logits: `[..., n, classes]`, finite, n >= 1, classes >= 2.
    labels: `[n]` integers in [0, classes).
    name: what an error calls the logits.

  Raises:
    ValueError: if the logits or the labels are anything else.
  """
  logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
  if logits.ndim < 2 or not logits.size or logits.shape[-1] < 2:
    raise ValueError(
      f"{name} has shape {logits.shape}; it must be [..., n, classes] with "
      "n >= 1 and classes >= 2."
    )
  if not np.isfinite(logits).all():
    raise ValueError(
      f"{name} has {np.sum(~np.isfinite(logits))} NaN or infinite entries; "
      "all must be finite."
    )
  n, classes = logits.shape[-2:]
  if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels has shape {labels.shape} and dtype {labels.dtype}; it must be "
      f"[{n}] integers, one for each row of {name}."
    )
  if labels.min() < 0 or labels.max() >= classes:
    raise ValueError(
      f"labels spans {labels.min()} to {labels.max()}; every label must be in "
      f"[0, {classes}), the classes of {name}."
    )
  return logits, labels


def as_sample(name: str, values: ArrayLike) -> np.ndarray:
  """Checked float64 sample `[n]`: one-dimensional, not empty, finite.

  Raises:
    ValueError: if `values` is anything else; the message begins with `name`.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size:
    raise ValueError(
      f"{name} has shape {values.shape}; it must be [n] with n >= 1."
    )
  if not np.isfinite(values).all():
    raise ValueError(
      f"{name} has {np.sum(~np.isfinite(values))} NaN or infinite entries; "
      "all must be finite."
    )
  return values


def correctness(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """1 where the arg max is the label, else 0; ties go to the lower class."""
  logits, labels = as_logits(logits, labels)
  return (logits.argmax(-1) == labels).astype(np.float64)


def margin(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Log-odds of the true class, phi = z_y - logsumexp_{i != y} z_i.

  The statistic of LiRA (arXiv 2112.03570), about Gaussian over models.
  """
  logits, labels = as_logits(logits, labels)
  return _at(_log_odds(logits), labels)


def confidence(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Probability of the true class, p_y = sigmoid(phi), in [0, 1]."""
  return special.expit(margin(logits, labels))


def loss(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Cross-entropy -log p_y = softplus(-phi), in nats."""
  return _softplus(-margin(logits, labels))


def entropy(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Shannon entropy -sum_i p_i log p_i, in nats, in [0, log classes].

  The labels are checked and not otherwise used.
  """
  logits, _ = as_logits(logits, labels)
  odds = _log_odds(logits)
  return np.sum(special.expit(odds) * _softplus(-odds), axis=-1)


def modified_entropy(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Entropy that knows the label: 0 if sure and right, large if sure and wrong.

      -(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i),    in nats

  Source: Song & Mittal, USENIX Security 2021 (arXiv 2003.10595).
  """
  logits, labels = as_logits(logits, labels)
  odds = _log_odds(logits)
  # With the true class's sign flipped, every term is sigmoid(u) softplus(u).
  _put(odds, labels, -_at(odds, labels))
  return np.sum(special.expit(odds) * _softplus(odds), axis=-1)


def released_modified_entropy(
  logits: ArrayLike, labels: ArrayLike
) -> np.ndarray:
  """The modified entropy that Unlearn-Sparse's code computes; for comparison.

      -sum_{i in L} (1 - p_i) log p_i - sum_{i not in L} p_i log p_i

  L is the set of ALL labels in the sample, not the row's own, and log p stands
  where log(1 - p) is due, so it depends on the other examples and not on the
  row's label. Use `modified_entropy` for anything but reproduction. (Where
  float32 underflows to p = 0 that code takes log p = log 1e-30; here log p is
  exact.)

  Source: OPTML-Group/Unlearn-Sparse, evaluation/SVC_MIA.py.
  """
  logits, labels = as_logits(logits, labels)
  odds = _log_odds(logits)
  odds_of_weight = odds.copy()
  present = np.unique(labels)
  odds_of_weight[..., present] *= -1
  return np.sum(special.expit(odds_of_weight) * _softplus(-odds), axis=-1)


def taylor_softmargin(
  logits: ArrayLike,
  labels: ArrayLike,
  *,
  temperature: float = 2.0,
  margin: float = 0.6,
  order: int = 4,
) -> np.ndarray:
  """Softmax with a truncated exponential and a margin, in (0, 1); for RMIA.

      P(u) = sum_{k < order} u^k / k!
      s = P(z_y/T - m) / ( P(z_y/T - m) + sum_{c != y} P(z_c/T) )

  P is increasing and has one zero (u = -1.596 for order 4), left of which the
  released code divides by negative "probabilities". Here u is clipped from
  below where P = 0.001, so that s stays positive; `taylor_clipped` says for
  which examples. Unlike the softmax, s changes when a constant is added to the
  logits.

  Args:
    logits: `[..., n, classes]`.
    labels: `[n]` integers.
    temperature: T > 0.
    margin: m >= 0.
    order: number of terms, even and at least 2; 4 stops at the cubic term, as
      in the released code. Odd numbers give a P that rises again on the left.

  Returns:
    `[..., n]`; larger for members.

  Raises:
    ValueError: if an argument is outside its range.

  Source: RMIA (arXiv 2312.03262); constants of AMUN's released code.
  """
  terms, _ = _taylor_terms(logits, labels, temperature, margin, order)
  return _at(terms, np.asarray(labels)) / np.sum(terms, axis=-1)


def taylor_clipped(
  logits: ArrayLike,
  labels: ArrayLike,
  *,
  temperature: float = 2.0,
  margin: float = 0.6,
  order: int = 4,
) -> np.ndarray:
  """Where `taylor_softmargin`, with the same arguments, had to clip.

  Returns:
    Bool `[..., n]`: true if any class of the example was clipped. A large
    fraction says that the logits are too negative for this signal at this
    temperature: center them, raise T, or use `confidence`.

  Raises:
    ValueError: if an argument is outside its range.
  """
  _, clipped = _taylor_terms(logits, labels, temperature, margin, order)
  return np.any(clipped, axis=-1)


def _taylor_terms(logits, labels, temperature, margin, order):
  """P of every class `[..., n, classes]`, and whether it was clipped."""
  logits, labels = as_logits(logits, labels)
  validate.positive(temperature=temperature)
  validate.at_least(0, margin=margin)
  if order < 2 or order % 2:
    raise ValueError(f"order is {order}; it must be even and at least 2.")
  u = logits / temperature
  _put(u, labels, _at(u, labels) - margin)
  value = np.polynomial.Polynomial(1 / special.factorial(np.arange(order)))(u)
  # P increases, so clipping its value is clipping its argument.
  return np.maximum(value, TAYLOR_FLOOR), value < TAYLOR_FLOOR


def _log_odds(logits):
  """One-vs-rest log-odds of every class, `[..., n, classes]`.

  log p - log(1 - p) is exact where p <= 1/2, hence everywhere but at the
  largest class, whose rest is summed without it.
  """
  log_p = special.log_softmax(logits, axis=-1)
  top = logits.argmax(-1)[..., None]
  rest_p, rest_z = np.exp(log_p), logits.copy()
  np.put_along_axis(rest_p, top, 0.0, axis=-1)
  np.put_along_axis(rest_z, top, -np.inf, axis=-1)
  odds = log_p - np.log1p(-rest_p)
  top_odds = np.take_along_axis(logits, top, axis=-1) - special.logsumexp(
    rest_z, axis=-1, keepdims=True
  )
  np.put_along_axis(odds, top, top_odds, axis=-1)
  return odds


def _softplus(x):
  return np.logaddexp(0.0, x)


def _index(values, labels):
  return np.broadcast_to(labels[:, None], (*values.shape[:-1], 1))


def _at(values, labels):
  """The label's entry of every row: `[..., n, classes] -> [..., n]`."""
  return np.take_along_axis(values, _index(values, labels), axis=-1)[..., 0]


def _put(values, labels, entries):
  """Overwrites the label's entry of every row, in place."""
  index = _index(values, labels)
  np.put_along_axis(values, index, entries[..., None], axis=-1)
