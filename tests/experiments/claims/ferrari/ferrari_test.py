"""Claims of Ferrari: what is run, and the numbers worked out by hand."""

import numpy as np
import pytest

from experiments.claims.ferrari import ablation, claims, comparison
from experiments.claims.ferrari.comparison import Found
from experiments.feature.recipe import Recipe
from experiments.feature.study import Study
from tests.experiments.untrained import Untrained


def found(**metrics):
  """Three seeds of one metric, by method."""
  values = {
    method: [{"x": value} for value in group]
    for method, group in metrics.items()
  }
  return Found([], {}, {}, values)


def test_medians_are_over_seeds_and_beside_the_original_of_the_same_seed():
  given = found(original=[1.0, 2.0, 4.0], ferrari=[0.5, 0.5, 3.0])
  assert given.median("ferrari", "x") == 0.5
  assert given.left("ferrari", "x") == 0.5  # of 1/2, 1/4, 3/4
  assert given.lost("x") == 100.0  # of 0.5, 1.5, 1.0


def test_every_phase_is_run_once_and_counted(monkeypatch):
  monkeypatch.setattr(comparison, "RATES", (0.01, 0.1))
  monkeypatch.setattr(comparison, "TUNING_SEEDS", (1000,))
  study = Study("sensitive", None, Recipe(rounds=3, unlearn_steps=20))
  study.session = Untrained()
  result = comparison.compare(study, 2)
  assert len(set(study.session.names)) == len(study.session.names)
  assert study.session.steps == claims._total(study, 2)
  assert result.rates.keys() == {"ferrari", "finetune"}
  assert [*result.metrics] == ["original", "retrain", "ferrari", "finetune"]
  retrained = result.metrics["retrain"]
  assert [metrics["flip_rate"] for metrics in retrained] == [0, 0]  # blind


def point(**values):
  return ablation.Point(**{"drop": 0.0, "roughness": 1.0, **values})


@pytest.mark.parametrize(
  ("stopped", "plain", "failing"),
  [
    (point(test_accuracy=0.7, sensitivity=0.9), point(drop=2.0), ["4b"]),
    (point(test_accuracy=0.8, sensitivity=0.9), point(drop=2.0), ["3a", "4b"]),
    (
      point(test_accuracy=0.7, sensitivity=1.2),
      point(roughness=2.0),
      ["3b", "4a"],
    ),
    (
      ablation.Point(),  # the attack never failed
      point(drop=1.0, roughness=2.0),
      ["3a", "3b"],
    ),
  ],
)
def test_what_the_ablations_show(stopped, plain, failing):
  points = {
    "both branches": [point()] * 3,
    "perturbed branch stopped": [stopped] * 3,
    "not normalized": [plain] * 3,
  }
  measured = [*ablation._branches(points), *ablation._denominator(points)]
  parts = [claims.Claim("", n, "", *rest) for n, *rest in measured]
  assert [part.number for part in parts if not part.passed] == failing


def test_the_table_leaves_out_seeds_in_which_the_attack_never_fails():
  steps = [point(steps=10.0), point(steps=30.0), ablation.Point()]
  (row,) = ablation._table({"x": steps})[-2:-1]
  assert row.startswith("| x | 2 of 3 | 20 |")
  assert np.isnan(ablation.Point().steps)
