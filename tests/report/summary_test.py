import math

import numpy as np
import pytest
from scipy import stats

from junlearn import report

ACCURACY = report.Metric(
  "accuracy", "Accuracy", unit="%", scale=100, forgetting=-1
)
AUC = report.Metric("auc", "AUC", forgetting=-1, chance=0.5)


def row(method, seed, **metrics):
  return {"method": method, "seed": seed, "metrics": metrics, "seconds": {}}


def rows_of(**values):
  """Rows of one metric: method=[value of seed 0, of seed 1, ...]."""
  return [
    row(method, seed, auc=value)
    for method, sequence in values.items()
    for seed, value in enumerate(sequence)
  ]


def entry(metric=AUC, **values):
  return report.summarize(rows_of(**values), [metric]).entries["m"]["auc"]


def test_numbers_by_hand():
  # Gaps 0.1, -0.1, 0.3: mean 0.1, mean size 0.5 / 3, variance 0.04.
  got = entry(m=[0.6, 0.5, 0.7], retrain=[0.5, 0.6, 0.4])
  assert math.isclose(got.value.mean, 0.6)
  assert math.isclose(got.value.std, 0.1)
  assert math.isclose(got.gap.mean, 0.1)
  assert math.isclose(got.distance.mean, 0.5 / 3)
  assert math.isclose(got.gap.std, 0.2)
  half = 4.302652729911275 * 0.2 / math.sqrt(3)
  np.testing.assert_allclose(got.gap.interval, (0.1 - half, 0.1 + half))


def test_interval_agrees_with_scipy_and_covers():
  rng = np.random.default_rng(0)
  covered = 0
  for _ in range(400):
    a, b = rng.normal(size=(2, 4))
    gap = entry(m=a, retrain=b).gap
    want = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(gap.interval, want)
    covered += gap.sign == 0
  # 0.95 up to four standard errors of a binomial.
  assert abs(covered / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_pairing_is_by_seed_not_by_position():
  rows = [
    row("m", 1, auc=0.9),
    row("m", 0, auc=0.5),
    row("retrain", 0, auc=0.5),
    row("retrain", 1, auc=0.9),
  ]
  got = report.summarize(rows, [AUC]).entries["m"]["auc"]
  assert got.distance.mean == 0.0
  assert got.arrow == "="


@pytest.mark.parametrize(
  ("values", "arrow"),
  [
    ([0.70, 0.71, 0.69], "↓"),
    ([0.30, 0.31, 0.29], "↑"),
    ([0.52, 0.47, 0.51], "="),
    ([0.6, 0.6, 0.6], "↓"),  # no spread: the interval is a point
    ([0.5, 0.5, 0.5 + 1e-16], "="),  # rounding is no difference
    ([0.7], "↓"),
    ([0.5], "="),
    ([math.nan, math.nan, math.nan], ""),
  ],
)
def test_arrows(values, arrow):
  assert entry(m=values, retrain=[0.5, 0.5, 0.5]).arrow == arrow


def test_missing_and_odd_values_are_left_out():
  rows = rows_of(m=[0.6, math.inf, None, "x"], retrain=[0.5, 0.5, 0.5, 0.5])
  rows.append({"method": "m", "seed": 4, "metrics": {}, "seconds": None})
  got = report.summarize(rows, [AUC]).entries["m"]["auc"]
  assert got.value.by_seed == {0: 0.6}
  assert math.isnan(got.value.std)
  assert AUC.show(got.value.mean, got.value.std) == "0.600"
  assert AUC.show(math.nan) == "n/a"


def test_references_first_and_no_duplicates():
  rows = rows_of(b=[0.5], retrain=[0.5], a=[0.6], original=[0.9])
  summary = report.summarize(rows, [AUC])
  assert summary.methods == ("original", "retrain", "b", "a")
  assert summary.candidates == ("b", "a")
  with pytest.raises(ValueError, match="'b' has two rows of seed 0"):
    report.summarize([*rows, rows[0]], [AUC])


def test_average_gap_and_closest():
  distance = report.Metric("loss", "Loss", span=2.0)
  extra = report.Metric("steps", "Steps", span=None)
  silent = report.Metric("norm", "Norm", compare=False)
  rows = [
    row("retrain", 0, auc=0.5, loss=1.0, steps=3, norm=1),
    row("near", 0, auc=0.6, loss=1.2, steps=9, norm=5),  # (.1 + .1) / 2
    row("far", 0, auc=0.5, loss=2.0, steps=3, norm=1),  # (0 + .5) / 2
    row("partial", 0, auc=0.5),
  ]
  summary = report.summarize(rows, [AUC, distance, extra, silent])
  assert math.isclose(summary.average["near"].mean, 10.0)
  assert math.isclose(summary.average["far"].mean, 25.0)
  assert summary.ranking == ("near", "far")
  assert summary.closest("auc") == {"far", "partial"}
  assert summary.closest("norm") == frozenset()
  text = report.verdict(summary)
  assert "near comes closest" in text
  assert "Not ranked, for lack of some metric: partial." in text
  assert "One seed only" in text


def test_verdict_sees_over_forgetting_and_ties():
  rows = rows_of(
    original=[0.80, 0.81, 0.79],
    retrain=[0.52, 0.51, 0.53],
    good=[0.52, 0.52, 0.52],
    twin=[0.53, 0.52, 0.54],
    harsh=[0.40, 0.41, 0.39],
  )
  summary = report.summarize(rows, [AUC])
  text = report.verdict(summary)
  assert text.startswith("Of 3 methods, good comes closest to retraining")
  assert "against 28.0 for the model before unlearning" in text
  assert "do not tell twin" in text
  assert "interval of its AUC includes retraining's" in text
  assert "a failure too, by harsh (AUC past chance)." in text
  assert report.over_forgotten(summary, "harsh") == (AUC,)
  assert report.over_forgotten(summary, "good") == ()


def test_verdict_admits_failure():
  rows = rows_of(original=[0.6, 0.6], retrain=[0.5, 0.5], bad=[0.7, 0.71])
  text = report.verdict(report.summarize(rows, [AUC]))
  assert "no method brought it any closer" in text
  assert "Its AUC differs from retraining's: 0.705 against 0.500." in text
  text = report.verdict(report.summarize(rows, [AUC._replace(chance=None)]))
  assert "No attack was run." in text
  text = report.verdict(report.summarize(rows_of(m=[1.0]), [AUC]))
  assert "nothing can be concluded" in text


def test_shown_numbers():
  assert ACCURACY.show(0.9471, 0.004) == "94.7 ± 0.4"
  assert ACCURACY.show(-0.0001) == "0.0"
  assert ACCURACY.show(-0.05) == "\N{MINUS SIGN}5.0"
  assert AUC.show(0.5) == "0.500"
  assert ACCURACY.heading == "Accuracy (%)"


def test_wrong_metrics_are_named():
  with pytest.raises(ValueError, match="span of 'auc' is 0"):
    report.summarize([], [AUC._replace(span=0)])
  with pytest.raises(ValueError, match="forgetting of 'auc' is 2"):
    report.summarize([], [AUC._replace(forgetting=2)])
