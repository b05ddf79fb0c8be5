"""How much of an answer a model still knows, per example `[n]`.

Probabilities count the end token; the two measures of memorization take
`scores.without_end`. Means over a set are the caller's, beside the retrained
model's.
"""

import numpy as np

from junlearn.audit.text.scores import TokenScores, lengths


def mean_nll(scores: TokenScores) -> np.ndarray:
  """-S / |y| in nats, the mean over the answer's tokens."""
  total = np.sum(scores.log_prob, axis=1, where=scores.mask)
  return -total / lengths(scores)


def probability(scores: TokenScores) -> np.ndarray:
  """p_norm = exp(S / |y|), the geometric mean of the tokens' probabilities."""
  return np.exp(-mean_nll(scores))


def exact_memorization(scores: TokenScores) -> np.ndarray:
  """Fraction of tokens that are the arg max, given the true ones before them.

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
