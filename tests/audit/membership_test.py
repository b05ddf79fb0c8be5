"""Attacks: second implementations, calibration, and known optima."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics

from junlearn.audit import membership

scores = hnp.arrays(
  np.float64, st.integers(1, 15), elements=st.integers(-4, 4).map(float)
)


def quick_roc(members, nonmembers, **options):
  return membership.roc(
    members, nonmembers, **{"seed": 0, "num_resamples": 20, **options}
  )


def naive_auc(members, nonmembers):
  wins = [(m > n) + (m == n) / 2 for m in members.tolist() for n in nonmembers]
  return np.mean(wins)


def naive_tpr(members, nonmembers, fpr):
  thresholds = [math.inf, *members, *nonmembers]
  return max(
    np.mean(members >= t) for t in thresholds if np.mean(nonmembers >= t) <= fpr
  )


def outputs(margins, label=0):
  """Two-class outputs of one label with the given log-odds of that label."""
  margins = np.asarray(margins)
  logits = np.stack([margins, np.zeros_like(margins)], axis=-1)
  if label:
    logits = logits[:, ::-1]
  return logits, np.full(len(margins), label)


def joined(*parts):
  logits, labels = zip(*parts, strict=True)
  return np.concatenate(logits), np.concatenate(labels)


# --- roc ---------------------------------------------------------------------


@settings(deadline=None)
@given(members=scores, nonmembers=scores)
def test_auc_counts_all_pairs_of_samples_of_any_size(members, nonmembers):
  expected = naive_auc(members, nonmembers)
  assert membership.auc(members, nonmembers) == pytest.approx(expected)


def test_roc_by_hand():
  result = quick_roc([3.0, 2.0, 1.0], [2.0, 0.0, 0.0], fpr=1 / 3)
  assert result.auc.value == pytest.approx((3 + 2.5 + 2) / 9)
  assert result.advantage.value == pytest.approx(result.auc.value - 0.5)
  assert result.tpr_at_fpr.value == 1
  assert result.num_examples == 3
  strict = quick_roc([3.0, 2.0, 1.0], [2.0, 0.0, 0.0], fpr=0.01)
  assert strict.tpr_at_fpr.value == pytest.approx(1 / 3)


@settings(deadline=None)
@given(
  pair=st.integers(1, 12).flatmap(
    lambda n: st.tuples(
      *[hnp.arrays(np.int64, n, elements=st.integers(-4, 4))] * 2
    )
  ),
  fpr=st.sampled_from([0.0, 0.01, 0.25, 1.0]),
)
def test_roc_is_the_definition(pair, fpr):
  members, nonmembers = pair
  result = quick_roc(members, nonmembers, fpr=fpr)
  assert result.auc.value == pytest.approx(naive_auc(members, nonmembers))
  assert result.tpr_at_fpr.value == (
    pytest.approx(naive_tpr(members, nonmembers, fpr))
  )


@settings(deadline=None)
@given(members=scores, nonmembers=scores)
def test_auc_is_antisymmetric_and_ignores_monotone_maps(members, nonmembers):
  size = min(len(members), len(nonmembers))
  members, nonmembers = members[:size], nonmembers[:size]
  there = quick_roc(members, nonmembers)
  back = quick_roc(nonmembers, members)
  assert there.advantage.value == pytest.approx(-back.advantage.value)
  mapped = quick_roc(members**3 + 1, nonmembers**3 + 1)
  np.testing.assert_array_equal(mapped.auc, there.auc)
  np.testing.assert_array_equal(mapped.tpr_at_fpr, there.tpr_at_fpr)


def test_auc_is_scikit_learns():
  rng = np.random.default_rng(0)
  members = np.round(rng.normal(0.5, size=300), 1)
  nonmembers = np.round(rng.normal(size=300), 1)
  expected = metrics.roc_auc_score(
    np.arange(600) < 300, np.concatenate([members, nonmembers])
  )
  assert quick_roc(members, nonmembers).auc.value == pytest.approx(expected)


def test_the_larger_sample_is_cut_to_the_smaller():
  rng = np.random.default_rng(0)
  few, many = rng.normal(size=50), rng.normal(size=5000)
  result = quick_roc(few, many)
  assert result.num_examples == 50
  assert result == quick_roc(few, many)
  assert result != quick_roc(few, many, seed=1)
  # A permutation of the smaller sample is the same sample.
  assert quick_roc(few[::-1], many).auc.value == result.auc.value


def test_memory_blocks_do_not_change_the_law_of_the_bootstrap(monkeypatch):
  rng = np.random.default_rng(0)
  samples = rng.normal(0.5, size=100), rng.normal(size=100)
  at_once = quick_roc(*samples, num_resamples=2000)
  monkeypatch.setattr(membership, "_BLOCK", 200 * 7)
  in_blocks = quick_roc(*samples, num_resamples=2000)
  np.testing.assert_allclose(at_once.auc, in_blocks.auc, atol=0.01)


@pytest.mark.parametrize("level", [0.95, 0.8, 0.5])
def test_auc_interval_covers_the_truth(level):
  """N(1, 1) against N(0, 1): AUC = Phi(1 / sqrt 2).

  The three levels check one another: an interval that is always too wide or
  too narrow misses at least one.
  """
  truth = stats.norm.cdf(1 / math.sqrt(2))
  rng = np.random.default_rng(0)
  draws, n = 600, 150
  covered = 0
  for seed in range(draws):
    auc = quick_roc(
      rng.normal(1.0, size=n),
      rng.normal(size=n),
      seed=seed,
      num_resamples=300,
      level=level,
    ).auc
    covered += auc.low <= truth <= auc.high
  standard_error = math.sqrt(level * (1 - level) / draws)
  assert abs(covered / draws - level) < 3 * standard_error


def test_null_roc_is_a_coin():
  rng = np.random.default_rng(1)
  draws, n, fpr = 300, 100, 0.05
  results = [
    quick_roc(*rng.normal(size=(2, n)), num_resamples=1, fpr=fpr)
    for _ in range(draws)
  ]
  auc = np.mean([result.auc.value for result in results])
  standard_error = math.sqrt((2 * n + 1) / (12 * n**2) / draws)
  assert abs(auc - 0.5) < 3 * standard_error
  # The TPR is that at the (k + 1)-th largest of n non-members, k = fpr n,
  # whose upper tail is Beta(k + 1, n - k) distributed.
  tpr = [result.tpr_at_fpr.value for result in results]
  expected = (fpr * n + 1) / (n + 1)
  assert abs(np.mean(tpr) - expected) < 3 * np.std(tpr) / math.sqrt(draws)


# --- threshold attack --------------------------------------------------------


def test_threshold_attack_by_hand():
  # Confidences rise with the log-odds, entropies fall with their modulus.
  retain, test = outputs([3.0, 2.0, 1.0]), outputs([1.5, -0.5, -4.0])
  # t = 2 and t = 1 both reach (TPR + TNR) / 2 = 5/6; the lower one is taken.
  forget = outputs([1.0, 0.9, -0.1, 7.0])
  efficacy = membership.threshold_attack(forget, retain, test)
  assert efficacy["confidence"] == 2 / 4
  assert efficacy["modified_entropy"] == 2 / 4
  assert efficacy["correctness"] == 1 / 4


def test_thresholds_are_per_class():
  retain = joined(outputs([5.0, 6.0]), outputs([1.0, 2.0], label=1))
  test = joined(outputs([3.0, 4.0]), outputs([-1.0, -2.0], label=1))
  forget = joined(outputs([4.0]), outputs([1.5], label=1))
  features = ["confidence"]
  efficacy = membership.threshold_attack(
    forget, retain, test, features=features
  )
  # Class 0 needs 5 and class 1 needs 1: one called non-member, one member.
  assert efficacy == {"confidence": 1 / 2}


def test_thresholds_weigh_rates_and_not_counts():
  retain, test = outputs([0.0, 1.0, 2.0, 3.0]), outputs([1.5])
  # t = 2 has TPR 1/2 and TNR 1; t = 0, which errs once only, has 1 and 0.
  efficacy = membership.threshold_attack(
    outputs([1.0]), retain, test, features=["confidence"]
  )
  assert efficacy == {"confidence": 1}


def test_absent_classes_take_the_global_threshold():
  retain, test = outputs([2.0, 3.0]), outputs([-1.0, 0.0])
  forget = outputs([1.9, 2.1, 2.2, 2.3], label=1)
  efficacy = membership.threshold_attack(forget, retain, test)
  assert efficacy["confidence"] == 1 / 4


def test_attacks_reach_the_optimum_of_two_gaussians():
  """Log-odds N(1, 1) against N(-1, 1): the best threshold is 0."""
  rng = np.random.default_rng(0)
  n = 2000
  retain = outputs(rng.normal(1.0, size=n))
  test = outputs(rng.normal(-1.0, size=n))
  like_test = outputs(rng.normal(-1.0, size=n))
  like_retain = outputs(rng.normal(1.0, size=n))
  features = ["confidence", "modified_entropy", "correctness"]
  options = {"features": features}
  for attack in (
    lambda forget: membership.threshold_attack(forget, retain, test, **options),
    lambda forget: membership.svc_attack(
      forget, retain, test, seed=0, max_examples=500, **options
    ),
  ):
    unseen, seen = attack(like_test), attack(like_retain)
    for feature in features:
      balanced_accuracy = (unseen[feature] + 1 - seen[feature]) / 2
      optimum = stats.norm.cdf(1.0)
      # Three standard errors of the judged sample; no attack beats the optimum.
      tolerance = 3 * math.sqrt(optimum * (1 - optimum) / (2 * n))
      assert balanced_accuracy < optimum + tolerance
      assert balanced_accuracy > optimum - tolerance - 0.01
      assert unseen[feature] == pytest.approx(optimum, abs=0.1)


# --- SVC attack --------------------------------------------------------------


def test_svc_attack_separates_what_is_separable():
  retain, test = (
    outputs(np.linspace(5, 9, 40)),
    outputs(np.linspace(-9, -5, 60)),
  )
  for forget, expected in ((test, 1.0), (retain, 0.0)):
    efficacy = membership.svc_attack(forget, retain, test, seed=0)
    assert tuple(efficacy) == membership.DEFAULT_FEATURES
    del efficacy["entropy"]  # blind to the label: here the sets look the same
    assert set(efficacy.values()) == {expected}


def test_svc_attack_is_reproducible_and_offers_the_released_form():
  rng = np.random.default_rng(0)
  sets = [
    (rng.normal(scale=2, size=(300, 4)), rng.integers(4, size=300))
    for _ in range(3)
  ]
  features = ["modified_entropy", "released_modified_entropy"]
  options = {"seed": 3, "features": features, "max_examples": 100}
  efficacy = membership.svc_attack(*sets, **options)
  assert efficacy == membership.svc_attack(*sets, **options)
  assert efficacy[features[0]] != efficacy[features[1]]


@pytest.mark.parametrize("attack", ["threshold", "svc"])
def test_null_attacks_judge_members_and_others_alike(attack):
  """Without a leak, balanced accuracy on fresh examples is 1/2."""
  rng = np.random.default_rng(0)
  draws, n = 40, 100
  accuracies = []
  for seed in range(draws):
    retain, test, seen, unseen = (
      outputs(rng.normal(1.0, size=n)) for _ in range(4)
    )
    called_nonmember = []
    for forget in (seen, unseen):
      if attack == "threshold":
        efficacy = membership.threshold_attack(forget, retain, test)
      else:
        efficacy = membership.svc_attack(forget, retain, test, seed=seed)
      called_nonmember.append(efficacy["confidence"])
    accuracies.append((1 - called_nonmember[0] + called_nonmember[1]) / 2)
  standard_error = np.std(accuracies, ddof=1) / math.sqrt(draws)
  assert abs(np.mean(accuracies) - 0.5) < 3 * standard_error
  assert standard_error < 0.01


# --- logistic attack ---------------------------------------------------------


def test_null_logistic_attack_is_a_coin():
  rng = np.random.default_rng(0)
  draws, n = 40, 200
  accuracies = [
    membership.logistic_attack(
      outputs(rng.normal(size=n)), outputs(rng.normal(size=2 * n)), seed=seed
    )
    for seed in range(draws)
  ]
  standard_error = np.std(accuracies, ddof=1) / math.sqrt(draws)
  assert abs(np.mean(accuracies) - 0.5) < 3 * standard_error + 0.01
  assert standard_error < 0.01


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_logistic_attack_finds_a_leak_on_either_side(shift):
  rng = np.random.default_rng(0)
  accuracy = membership.logistic_attack(
    outputs(rng.normal(shift, size=300)), outputs(rng.normal(size=300)), seed=0
  )
  assert accuracy == pytest.approx(stats.norm.cdf(1.0), abs=0.05)


# --- wrong input -------------------------------------------------------------


@pytest.mark.parametrize(
  ("arguments", "options", "message"),
  [
    (([], [1.0]), {}, r"member_scores has shape \(0,\)"),
    (([1.0], [np.nan]), {}, "nonmember_scores has 1 NaN"),
    (([1.0], [[1.0]]), {}, r"nonmember_scores has shape \(1, 1\)"),
    (([1.0], [1.0]), {"fpr": 1.5}, r"fpr is 1\.5"),
    (([1.0], [1.0]), {"level": 1.0}, r"level is 1\.0"),
    (([1.0], [1.0]), {"num_resamples": 0}, "num_resamples is 0"),
  ],
)
def test_bad_scores(arguments, options, message):
  with pytest.raises(ValueError, match=message):
    membership.roc(*arguments, **{"seed": 0, **options})


def test_bad_outputs():
  good = outputs([1.0] * 10)
  wide = np.zeros((10, 3)), np.zeros(10, int)
  bad = np.full((10, 2), np.nan), np.zeros(10, int)
  with pytest.raises(ValueError, match="each must be"):
    membership.threshold_attack(good, wide, good)
  with pytest.raises(ValueError, match="retain logits has 20 NaN"):
    membership.svc_attack(good, bad, good, seed=0)
  with pytest.raises(ValueError, match=r"features is \['gradient'\]"):
    membership.svc_attack(good, good, good, seed=0, features=["gradient"])
  with pytest.raises(ValueError, match="max_examples is 0"):
    membership.svc_attack(good, good, good, seed=0, max_examples=0)
  with pytest.raises(ValueError, match=r"test has losses of shape \(9,\)"):
    membership.logistic_attack(good, outputs([1.0] * 9), seed=0)
  with pytest.raises(ValueError, match="num_splits is 0"):
    membership.logistic_attack(good, good, seed=0, num_splits=0)
