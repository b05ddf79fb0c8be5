"""How much of an answer a model still says, per example `[n]`.

Probabilities count the end token; the two measures of memorisation take
`scores.without_end`. Means over a set are the caller's, beside the retrained
model's.
"""

import numpy as np
from numpy.typing import ArrayLike

from junlearn.audit.text.scores import TokenScores, lengths


def mean_nll(scores: TokenScores) -> np.ndarray:
  """-S / |y| in nats, the mean over the answer's tokens."""
  total = np.sum(scores.log_prob, axis=1, where=scores.mask)
  return -total / lengths(scores)


def probability(scores: TokenScores) -> np.ndarray:
  """p_norm = exp(S / |y|), the geometric mean of the tokens' probabilities."""
  return np.exp(-mean_nll(scores))


def exact_memorisation(scores: TokenScores) -> np.ndarray:
  """Share of tokens that are the arg max, given the true ones before them.

  Source: Tirumala et al. (arXiv 2205.10770).
  """
  correct = np.sum(scores.correct, axis=1, where=scores.mask)
  return correct / lengths(scores)


def extraction_strength(
  scores: TokenScores, *, compat: bool = False
) -> np.ndarray:
  """1 - k/|y|, k the shortest prefix after which all tokens are right.

  Args:
    scores: of the answers.
    compat: give an answer whose last token is wrong 1/|y|, as one whose last
      token alone is right, instead of 0; OpenUnlearning's code does.

  Source: Carlini et al. (arXiv 2012.07805), as OpenUnlearning computes it.
  """
  num_tokens = lengths(scores)
  wrong = scores.mask & ~scores.correct
  # Tokens to predict from the last wrong one on, that one included.
  is_suffix = np.cumsum(wrong[:, ::-1], axis=1)[:, ::-1] == 0
  suffix = np.sum(is_suffix & scores.mask, axis=1)
  return np.maximum(suffix, 1 if compat else 0) / num_tokens


def rank(log_probs: ArrayLike, true: ArrayLike) -> np.ndarray:
  """Rank of the true value among K candidates: 1 is the likeliest.

  Ties count half, so that chance is (K + 1) / 2. A value that was forgotten
  by pushing it down betrays itself as the last one.

  Args:
    log_probs: `[n, K]`, larger for likelier candidates.
    true: `[n]` integers, the column of the true value.

  Returns:
    `[n]` in [1, K].

  Raises:
    ValueError: if the shapes disagree or a column does not exist.
  """
  log_probs, true = np.asarray(log_probs, np.float64), np.asarray(true)
  if log_probs.ndim != 2 or true.shape != log_probs.shape[:1]:
    raise ValueError(
      f"log_probs has shape {log_probs.shape} and true {true.shape}; they must "
      "be [n, K] and [n]."
    )
  if np.any((true < 0) | (true >= log_probs.shape[1])):
    raise ValueError(
      f"true spans {true.min()} to {true.max()}; it must be in "
      f"[0, {log_probs.shape[1]}), the columns of log_probs."
    )
  own = np.take_along_axis(log_probs, true[:, None], axis=1)
  above = np.sum(log_probs > own, axis=1)
  tied = np.sum(log_probs == own, axis=1) - 1
  return 1 + above + tied / 2
