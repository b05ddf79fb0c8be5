"""Token scores of answers as they might have been stored."""

import numpy as np

from junlearn.audit.text.scores import TokenScores

HALF, QUARTER = np.log(1 / 2), np.log(1 / 4)


def token_scores(log_prob, mask, correct=0, mean=0.0, std=1.0) -> TokenScores:
  """Scores from lists; what is left out is the same everywhere."""
  shape = np.shape(log_prob)
  return TokenScores(
    np.array(log_prob, float),
    np.broadcast_to(np.array(mask, bool), shape),
    np.broadcast_to(np.array(correct, bool), shape),
    np.broadcast_to(np.array(mean, float), shape),
    np.broadcast_to(np.array(std, float), shape),
  )


def six_tokens() -> TokenScores:
  """Six tokens to predict between others, wrong in the third.

  A second row is wrong in the last one alone; a third has one token. Values
  outside the mask must not matter.
  """
  spoken = [-9, HALF, 0, QUARTER, HALF, HALF, QUARTER, -9]
  return token_scores(
    [spoken, spoken, [-9, -9, -9, QUARTER, -9, -9, -9, -9]],
    [
      [0, 1, 1, 1, 1, 1, 1, 0],
      [0, 1, 1, 1, 1, 1, 1, 0],
      [0, 0, 0, 1, 0, 0, 0, 0],
    ],
    [
      [0, 1, 1, 0, 1, 1, 1, 0],
      [1, 1, 1, 1, 1, 1, 0, 1],
      [0, 0, 0, 1, 0, 0, 0, 0],
    ],
  )


def random_scores(seed: int, n: int = 40, t: int = 12) -> TokenScores:
  """Answers of 1 to `t - 3` tokens at random places of their rows."""
  rng = np.random.default_rng(seed)
  start = rng.integers(0, 3, size=(n, 1))
  length = rng.integers(1, t - 2, size=(n, 1))
  place = np.arange(t)
  return token_scores(
    -rng.exponential(size=(n, t)),
    (start <= place) & (place < start + length),
    rng.random((n, t)) < 0.8,
    -rng.exponential(size=(n, t)),
    rng.exponential(size=(n, t)),
  )


def answers(scores: TokenScores, name: str) -> list[np.ndarray]:
  """The values of each row's tokens to predict."""
  values = getattr(scores, name)
  return [row[mask] for row, mask in zip(values, scores.mask, strict=True)]
