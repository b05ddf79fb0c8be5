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


def test_exact_memorization_by_hand():
  np.testing.assert_allclose(memory.exact_memorization(SIX), [5 / 6, 5 / 6, 1])
  cut = without_end(TokenScores(*(leaf[:2] for leaf in SIX)))
  np.testing.assert_allclose(memory.exact_memorization(cut), [4 / 5, 1])


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
    memory.exact_memorization(scores), [np.mean(row) for row in correct]
  )
  np.testing.assert_allclose(memory.extraction_strength(scores), strength)


def test_bad_input():
  empty = SIX._replace(mask=SIX.mask & [[True], [False], [True]])
  for metric in (
    memory.probability,
    memory.exact_memorization,
    memory.extraction_strength,
  ):
    with pytest.raises(ValueError, match="1 of 3 rows without a token"):
      metric(empty)
