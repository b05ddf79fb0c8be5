"""TOFU's metrics by hand, and against SciPy on stored scores."""

import math

import numpy as np
import pytest
from scipy import stats

from junlearn.audit.text import memory, truth
from tests.audit.text import stored

# p_norm of the right answers, and of two wrong ones each.
RIGHT = -np.log([1 / 2, 1 / 8])
WRONG = -np.log([[1 / 4, 1 / 16], [1 / 2, 1 / 2]])


def pairs(seed, n=40, k=5):
  """Probabilities of stored right and wrong answers, and their mean NLLs."""
  right = stored.random_scores(seed, n)
  wrong = stored.random_scores(seed + 1, n * k)
  p_right, p_wrong = (
    np.array(
      [stats.gmean(np.exp(row)) for row in stored.answers(s, "log_prob")]
    )
    for s in (right, wrong)
  )
  nll = memory.mean_nll(right), memory.mean_nll(wrong).reshape(n, k)
  return p_right, p_wrong.reshape(n, k), nll


def test_truth_ratio_by_hand():
  # Geometric means 1/8 and 1/2; arithmetic 5/32 and 1/2.
  ratio = [1 / 4, 4]
  np.testing.assert_allclose(np.exp(truth.log_truth_ratio(RIGHT, WRONG)), ratio)
  np.testing.assert_allclose(
    np.exp(truth.log_truth_ratio(RIGHT, WRONG, form="inverse")), [4, 1 / 4]
  )
  np.testing.assert_allclose(
    np.exp(truth.log_truth_ratio(RIGHT, WRONG, form="arithmetic")), [5 / 16, 4]
  )
  assert truth.forget_truth(np.log(ratio)) == pytest.approx(1 / 4)
  assert truth.utility_truth(np.log(ratio)) == pytest.approx(3 / 8)
  assert truth.truth_share(np.log(ratio)) == pytest.approx((4 / 5 + 1 / 5) / 2)


def test_normalized_probability_by_hand():
  np.testing.assert_allclose(
    truth.normalized_probability(RIGHT, WRONG),
    [0.5 / (0.5 + 0.25 + 0.0625), 0.125 / 1.125],
  )


@pytest.mark.parametrize("seed", range(3))
def test_stored_scores_recomputed(seed):
  right, wrong, nll = pairs(seed)
  log_ratio = truth.log_truth_ratio(*nll)
  ratio = stats.gmean(wrong, axis=1) / right
  np.testing.assert_allclose(np.exp(log_ratio), ratio)
  np.testing.assert_allclose(
    np.exp(truth.log_truth_ratio(*nll, form="arithmetic")),
    wrong.mean(axis=1) / right,
  )
  np.testing.assert_allclose(
    truth.normalized_probability(*nll), right / (right + wrong.sum(axis=1))
  )
  assert truth.forget_truth(log_ratio) == pytest.approx(
    np.minimum(ratio, 1 / ratio).mean()
  )
  assert truth.utility_truth(log_ratio) == pytest.approx(
    np.maximum(0, 1 - ratio).mean()
  )
  assert truth.truth_share(log_ratio) == pytest.approx(
    np.mean(right / (right + stats.gmean(wrong, axis=1)))
  )
  assert truth.model_utility(right) == pytest.approx(stats.hmean(right))


@pytest.mark.parametrize("seed", range(3))
def test_forget_quality_is_scipys_of_the_ratios(seed):
  (_, _, one), (_, _, two) = pairs(seed), pairs(seed + 10, n=30)
  quality = truth.forget_quality(
    truth.log_truth_ratio(*one), truth.log_truth_ratio(*two)
  )
  ratios = [np.exp(truth.log_truth_ratio(*nll)) for nll in (one, two)]
  expected = stats.ks_2samp(*ratios, method="exact").pvalue
  assert quality.pvalue == pytest.approx(expected)
  assert quality.log10 == pytest.approx(math.log10(expected))
  inverse = [truth.log_truth_ratio(*nll, form="inverse") for nll in (one, two)]
  assert truth.forget_quality(*inverse).pvalue == pytest.approx(expected)


def test_ratios_of_a_collapsed_model_do_not_overflow():
  right, wrong = np.array([2000.0, 1.0]), np.array([[1.0], [2000.0]])
  log_ratio = truth.log_truth_ratio(right, wrong)
  np.testing.assert_array_equal(log_ratio, [1999, -1999])
  assert truth.forget_truth(log_ratio) == 0
  assert truth.utility_truth(log_ratio) == 0.5
  np.testing.assert_allclose(truth.normalized_probability(right, wrong), [0, 1])


@pytest.mark.parametrize(
  ("n", "log10"), [(3, -1), (200, -118.7116069), (400, -238.9732259)]
)
def test_quality_of_ratios_that_do_not_overlap_is_the_floor(n, log10):
  quality = truth.forget_quality(np.arange(n), np.arange(n) + 1e4)
  assert quality.pvalue == pytest.approx(2 / math.comb(2 * n, n))
  assert quality.log10 == pytest.approx(log10, abs=1e-6)
  assert truth.forget_quality(np.arange(n), np.arange(n)) == (1, 0)


def test_quality_below_double_precision_has_no_logarithm():
  assert truth.forget_quality(np.arange(600), np.arange(600) + 1e4) == (
    0,
    -math.inf,
  )


def test_model_utility_is_zero_if_anything_is_lost():
  nine = np.linspace(0.2, 1, 9)
  assert truth.model_utility(nine) == pytest.approx(stats.hmean(nine))
  assert truth.model_utility([*nine[:-1], 0]) == 0


def test_forgetting_is_one_if_nothing_is_left():
  gone = {"extraction": 0, "exact": 0, "paraphrased": 0, "truth": 0}
  assert truth.forgetting(**gone) == 1
  assert truth.forgetting(**{**gone, "exact": 1}) == 0
  some = {"extraction": 0.5, "exact": 0.75, "paraphrased": 0.5, "truth": 0.5}
  assert truth.forgetting(**some) == pytest.approx(4 / (2 + 4 + 2 + 2))


def test_bad_input():
  with pytest.raises(ValueError, match=r"right has shape \(2,\)"):
    truth.log_truth_ratio(RIGHT, WRONG[:1])
  with pytest.raises(ValueError, match="form is 'harmonic'"):
    truth.log_truth_ratio(RIGHT, WRONG, form="harmonic")
  with pytest.raises(ValueError, match="finite numbers of at least 0"):
    truth.model_utility([0.5, -0.1])
  with pytest.raises(ValueError, match="finite numbers of at least 0"):
    truth.model_utility([])
