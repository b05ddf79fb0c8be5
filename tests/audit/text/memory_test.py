"""What a model still says of an answer, by hand and recomputed."""

import numpy as np
import pytest
from scipy import stats

from junlearn.audit.text import memory
from junlearn.audit.text.scores import TokenScores, without_end
from tests.audit.text import stored

SIX = stored.six_tokens()


def test_probability_by_hand():
  # 1/2 * 1 * 1/4 * 1/2 * 1/2 * 1/4 = 2^-7.
  np.testing.assert_allclose(
    memory.probability(SIX), [2 ** (-7 / 6), 2 ** (-7 / 6), 1 / 4]
  )
  np.testing.assert_allclose(memory.mean_nll(SIX)[2], 2 * np.log(2))


def test_exact_memorisation_by_hand():
  np.testing.assert_allclose(memory.exact_memorisation(SIX), [5 / 6, 5 / 6, 1])
  cut = without_end(TokenScores(*(leaf[:2] for leaf in SIX)))
  np.testing.assert_allclose(memory.exact_memorisation(cut), [4 / 5, 1])


def test_extraction_strength_by_hand():
  # The third of six tokens is the last wrong one: k = 3. Of the second answer
  # the last token is wrong, so that nothing can be extracted.
  np.testing.assert_allclose(memory.extraction_strength(SIX), [1 - 3 / 6, 0, 1])
  np.testing.assert_allclose(
    memory.extraction_strength(SIX, compat=True), [1 - 3 / 6, 1 / 6, 1]
  )


@pytest.mark.parametrize("seed", range(3))
def test_stored_scores_recomputed_row_by_row(seed):
  scores = stored.random_scores(seed)
  probability = [
    stats.gmean(np.exp(row)) for row in stored.answers(scores, "log_prob")
  ]
  correct = stored.answers(scores, "correct")
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
