"""What is decided for every certified study, whatever its modality."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.release import fallback, names, plain, study
from experiments.release.names import Name
from experiments.release.terms import Terms
from junlearn.certify import calibrate
from junlearn.transform import Request


def test_releases_come_in_the_order_of_the_ledger():
  found = names.of_run(2, ["b", "a"], 2)
  assert [*map(str, found)] == [
    f"seed{seed}/{method}/{index}"
    for seed in range(2)
    for method in ("b", "a")
    for index in range(2)
  ]
  assert found[-1].phase("released") == "seed1/a/1-released"


@pytest.mark.parametrize(
  ("fallback_of_terms", "distance", "stages"),
  [
    ("none", 0.1, ["corrected"]),
    ("none", 0.3, ["corrected"]),
    ("retrain", 0.2, ["corrected"]),
    ("retrain", 0.3, ["corrected", "retrained"]),
    ("retrain", math.nan, ["corrected", "retrained"]),
  ],
)
def test_what_is_too_far_away_is_retrained(fallback_of_terms, distance, stages):
  terms = Terms(max_distance=0.2, fallback=fallback_of_terms)
  bound = SimpleNamespace(distance=lambda params, request: distance)
  run = []

  def phase(stage):
    run.append(stage)
    return f"params of {stage}"

  found = fallback.settle(terms, bound, None, phase)
  assert run == stages
  assert found == (f"params of {stages[-1]}", len(stages) == 2)


@pytest.mark.parametrize("releases", [1, 7])
def test_all_releases_together_have_the_budget(releases):
  terms = Terms(epsilon=0.7, delta=1e-6, planned_releases=releases)
  together = calibrate.gaussian_epsilon(
    terms.delta, math.sqrt(releases), terms.sigma
  )
  assert together == pytest.approx(terms.epsilon, rel=1e-5)
  alone = calibrate.gaussian_sigma(terms.each, terms.delta, 1.0)
  assert alone == pytest.approx(terms.sigma, rel=1e-5)


def test_curves_are_joined_where_they_end():
  curves = [[[0, 9.0], [3, 5.0]], [[0, 5.0], [2, 4.0], [7, 1.0]], [[0, 1.0]]]
  assert study._joined(curves) == [[0, 9.0], [3, 5.0], [5, 4.0], [10, 1.0]]
  assert curves[0] == [[0, 9.0], [3, 5.0]]


@pytest.mark.parametrize("clients", [(), (3,)])
def test_a_plain_release_has_an_axis_of_clients(clients):
  count = math.prod(clients, start=4)
  weight = np.ones((*clients, 4))
  weight[..., 0] = 0
  records = {
    "input": np.ones((*clients, 4, 2)),
    "label": np.zeros((*clients, 4), int),
    "id": np.arange(count).reshape(*clients, 4),
  }
  params = {
    "params": {
      "Dense_0": {
        "kernel": np.ones((*clients, 2, 5)),
        "bias": np.ones((*clients, 5)),
      }
    }
  }
  found = plain.describe(
    SimpleNamespace(
      name=Name(0, "newton", 0),
      request=Request(
        records | {"weight": 1 - weight}, records | {"weight": weight}
      ),
      corrected=params,
      released=params,
    ),
    {"original": params, "retrain": params},
    {"form": "stacked"},
    Terms(planned_releases=6),
  )
  n = count // 4
  assert found["inputs"].shape == (n, 4, 2)
  assert found["labels"].shape == found["weight"].shape == (n, 4)
  assert found["released"]["kernel"].shape == (n, 2, 5)
  assert found["retrained"]["bias"].shape == (n, 5)
  assert found["ids"]["forget"].tolist() == list(range(0, count, 4))
  assert found["ids"]["retain"].size == 3 * n
  assert found["form"] == "stacked"
  assert found["budget"] == {"epsilon": 1.0, "delta": 1e-5, "planned": 6}
