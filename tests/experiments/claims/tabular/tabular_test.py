"""Claims of the worked example: what is demanded of which models."""

import pytest

from experiments.claims.tabular import claims
from experiments.run.study import Evidence
from experiments.tabular import study as studies
from tests.experiments.untrained import Untrained

GOOD = {"original": (1.0, 0.9), "unlearned": (0.85, 0.9), "retrain": (0.8, 0.9)}


@pytest.fixture
def verdicts(monkeypatch):
  """What the claims say of (forget accuracy, test accuracy) of each model."""

  class Session(Untrained):
    def __init__(self, *_, **__):
      super().__init__()

    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

  def told(**models):
    def audit(self, method, outcome, case):
      del self, outcome, case
      name = "unlearned" if method == "grad_difference" else method
      names = ("forget_accuracy", "test_accuracy")
      values = (GOOD | models)[name]
      return Evidence(dict(zip(names, values, strict=True)))

    monkeypatch.setattr(claims, "Session", Session)
    monkeypatch.setattr(studies.Study, "audit", audit)
    ((found, lines),) = claims.run(None, 2)
    assert lines == []
    return {claim.number: claim.passed for claim in found}

  return told


def test_all_hold_where_the_method_comes_close(verdicts):
  assert verdicts() == {"1": True, "2": True, "3": True}


@pytest.mark.parametrize(
  ("changed", "number"),
  [
    ({"original": (0.84, 0.9), "unlearned": (0.81, 0.9)}, "1"),
    ({"unlearned": (0.95, 0.9)}, "2"),
    ({"unlearned": (0.65, 0.9)}, "2"),  # past retraining counts as well
    ({"unlearned": (0.85, 0.8)}, "3"),
  ],
)
def test_each_can_fail_alone(verdicts, changed, number):
  found = verdicts(**changed)
  assert [n for n, passed in found.items() if not passed] == [number]
