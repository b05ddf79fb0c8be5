"""What a model still says of an answer, by hand and recomputed."""

import numpy as np
import pytest
from scipy import stats

from junlearn.audit.language import memory
from junlearn.audit.language.scores import TokenScores, without_end

HALF, QUARTER = np.log(1 / 2), np.log(1 / 4)


def token_scores(log_prob, mask, correct, mean=0.0, std=1.0):
  log_prob = np.array(log_prob, float)
  return TokenScores(
    log_prob,
    np.array(mask, bool),
    np.array(correct, bool),
    np.broadcast_to(np.array(mean, float), log_prob.shape),
    np.broadcast_to(np.array(std, float), log_prob.shape),
  )


# Six tokens to predict between others, then the same but for its last word,
# then one token. The values outside the mask must not matter.
SIX = token_scores(
  [
    [-9, HALF, 0, QUARTER, HALF, HALF, QUARTER, -9],
    [-9, HALF, 0, QUARTER, HALF, HALF, QUARTER, -9],
    [-9, -9, -9, QUARTER, -9, -9, -9, -9],
  ],
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


def stored(n=40, t=12, seed=0):
  """Random scores with answers of 1 to `t - 2` tokens anywhere in a row."""
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


def answers(scores, name):
  """The values of each row's tokens to predict, as lists."""
  values = getattr(scores, name)
  return [row[mask] for row, mask in zip(values, scores.mask, strict=True)]


def test_probability_by_hand():
  # 1/2 * 1 * 1/4 * 1/2 * 1/2 * 1/4 = 2^-7.
  np.testing.assert_allclose(
    memory.probability(SIX), [2 ** (-7 / 6), 2 ** (-7 / 6), 1 / 4]
  )
  np.testing.assert_allclose(memory.mean_nll(SIX)[2], 2 * np.log(2))


def test_exact_memorisation_by_hand():
  np.testing.assert_allclose(
    memory.exact_memorisation(SIX), [5 / 6, 5 / 6, 1]
  )
  cut = without_end(SIX._replace(mask=SIX.mask[:2].repeat(2, 0)[:3]))
  np.testing.assert_allclose(memory.exact_memorisation(cut)[0], 4 / 5)


def test_extraction_strength_by_hand():
  # The third of six tokens is the last wrong one: k = 3. Of the second answer
  # the last token is wrong, so that nothing can be extracted.
  np.testing.assert_allclose(
    memory.extraction_strength(SIX), [1 - 3 / 6, 0, 1]
  )
  np.testing.assert_allclose(
    memory.extraction_strength(SIX, compat=True), [1 - 3 / 6, 1 / 6, 1]
  )


@pytest.mark.parametrize("seed", range(3))
def test_stored_scores_recomputed_row_by_row(seed):
  scores = stored(seed=seed)
  probability = [
    stats.gmean(np.exp(row)) for row in answers(scores, "log_prob")
  ]
  correct = answers(scores, "correct")
  strength = [
    max(k for k in range(len(row) + 1) if row[len(row) - k :].all()) / len(row)
    for row in correct
  ]
  np.testing.assert_allclose(memory.probability(scores), probability)
  np.testing.assert_allclose(
    memory.exact_memorisation(scores), [np.mean(row) for row in correct]
  )
  np.testing.assert_allclose(memory.extraction_strength(scores), strength)


def test_rank_among_candidates():
  log_probs = [[-1, -2, -3.0], [-1, -2, -3], [-2, -1, -1], [-1, -1, -1]]
  np.testing.assert_array_equal(
    memory.rank(log_probs, [0, 2, 1, 2]), [1, 3, 1.5, 2]
  )
  rng = np.random.default_rng(0)
  noise, true = rng.normal(size=(400, 9)), rng.integers(9, size=400)
  expected = stats.rankdata(-noise, axis=1)[np.arange(400), true]
  np.testing.assert_array_equal(memory.rank(noise, true), expected)


def test_bad_input():
  empty = SIX._replace(mask=SIX.mask & [[True], [False], [True]])
  for metric in (
    memory.probability,
    memory.exact_memorisation,
    memory.extraction_strength,
  ):
    with pytest.raises(ValueError, match="1 of 3 rows without a token"):
      metric(empty)
  with pytest.raises(ValueError, match=r"must be \[n, K\] and \[n\]"):
    memory.rank([[1.0, 2.0]], [0, 1])
  with pytest.raises(ValueError, match="true spans 2 to 2"):
    memory.rank([[1.0, 2.0]], [2])
