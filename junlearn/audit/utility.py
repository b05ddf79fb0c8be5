"""What a model still does, and how far its outputs are from retraining's.

No number here is good or bad by being large: read each beside the value of the
original and of the retrained model (`gap.py`).
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from junlearn.audit import signals


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
  """Fraction of examples whose arg max is their label, in [0, 1].

  Args:
    logits: `[n, classes]`; with leading model axes, the mean over models.
    labels: `[n]` integers.
  """
  return float(np.mean(signals.correctness(logits, labels)))


def ks_distance(a: ArrayLike, b: ArrayLike) -> float:
  """Two-sample Kolmogorov-Smirnov statistic, sup_t |F_a(t) - F_b(t)|.

  Args:
    a: sample `[n]`.
    b: sample `[m]`.

  Returns:
    A number in [0, 1]; 0 for equal empirical distributions. Samples of one
    distribution exceed about 1.36 sqrt(1/n + 1/m) in 5 % of draws.

  Raises:
    ValueError: if a sample is empty, not one-dimensional or not finite.
  """
  a, b = signals.as_sample("a", a), signals.as_sample("b", b)
  with np.errstate(all="ignore"):  # of the p-value of tiny samples
    return float(stats.ks_2samp(a, b, method="asymp").statistic)


def ks_pvalue(a: ArrayLike, b: ArrayLike) -> float:
  """Exact p-value of the two-sample Kolmogorov-Smirnov test.

  The fraction of the C(n + m, n) orders of two samples without ties whose KS
  distance is at least that of a and b; with ties it is too large, never too
  small. Samples of equal size n that do not overlap have 2 / C(2n, n).

  Args:
    a: sample `[n]`.
    b: sample `[m]`.

  Returns:
    A number in [0, 1]; only below 1e-308 (n = m above 500) is it rounded to 0.

  Raises:
    ValueError: if a sample is empty, not one-dimensional or not finite.

  Source: Hodges, The significance probability of the Smirnov two-sample test
  (1958), in SciPy.
  """
  a, b = signals.as_sample("a", a), signals.as_sample("b", b)
  with warnings.catch_warnings():
    if len(a) == len(b):
      # SciPy gives up an exact value that roundoff takes above 1.
      warnings.filterwarnings("error", "ks_2samp: Exact", RuntimeWarning)
    try:
      return float(stats.ks_2samp(a, b, method="exact").pvalue)
    except RuntimeWarning:
      return 1.0


def activation_distance(
  logits: ArrayLike, retrain_logits: ArrayLike, labels: ArrayLike
) -> float:
  """Mean over examples of ||p - p_retrain||_2, in [0, sqrt 2].

  Args:
    logits: `[n, classes]` of the model.
    retrain_logits: `[n, classes]` of the retrained model, same examples.
    labels: `[n]` integers; checked and not otherwise used.
  """
  p, q = _paired_probabilities(logits, retrain_logits, labels)
  return float(np.mean(np.linalg.norm(p - q, axis=-1)))


def zero_retrain_forgetting(
  logits: ArrayLike, untrained_logits: ArrayLike, labels: ArrayLike
) -> float:
  """ZRF, 1 - mean_x JS( p(x), p_untrained(x) ) with JS in bits, in [0, 1].

  1 means that the model knows no more than an untrained one, which is more
  forgetting than retraining reaches unless the examples are unpredictable.

  Args:
    logits: `[n, classes]` of the model on the forget set.
    untrained_logits: `[n, classes]` of a randomly initialized model.
    labels: `[n]` integers; checked and not otherwise used.

  Source: Chundawat et al. (arXiv 2205.08096).
  """
  p, q = _paired_probabilities(logits, untrained_logits, labels)
  m = (p + q) / 2
  nats = (special.rel_entr(p, m) + special.rel_entr(q, m)) / 2
  return float(1 - np.mean(np.sum(nats, axis=-1)) / np.log(2))


def _paired_probabilities(logits, other_logits, labels):
  logits, _ = signals.as_logits(logits, labels)
  other_logits, _ = signals.as_logits(other_logits, labels, "other logits")
  if logits.shape != other_logits.shape:
    raise ValueError(
      f"the two models' logits have shapes {logits.shape} and "
      f"{other_logits.shape}; they must agree."
    )
  return special.softmax(logits, -1), special.softmax(other_logits, -1)
