"""Feature unlearning as a user runs it: what is left, what is refused."""

import contextlib
import json
import re

import numpy as np
import pytest

from experiments.feature.recipe import Recipe
from experiments.feature.scenarios import SCENARIOS
from experiments.feature.tasks import TARGET
from junlearn.data import Dataset, from_arrays
from tests.experiments.driver import Driver, hashes, leftovers, read_rows

SMALL = ("--seeds=1", "--rounds=3", "--unlearn_steps=20", "--num_draws=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("feature")


@pytest.fixture(scope="module")
def run(folder):
  with contextlib.closing(Driver(folder, "experiments.feature", SMALL)) as run:
    yield run


@pytest.mark.slow
def test_a_run_leaves_its_report_and_starts_again(run, folder):
  workdir = folder / "run"
  code, out, err = run(workdir)
  assert (code, out) == (0, f"{workdir}/report.html\n"), err
  assert "Warning" not in err
  rows = read_rows(workdir)
  assert [row["method"] for row in rows] == [
    "retrain",
    "original",
    "ferrari",
    "finetune",
  ]
  for row in rows:
    assert np.isfinite(list(row["metrics"].values())).all()
  assert len({row["params_sha256"] for row in rows}) == 4
  assert 1 <= rows[2]["metrics"]["steps"] <= 20
  page = (workdir / "report.html").read_text()
  assert "Accuracy against sensitivity" in page
  assert json.loads((workdir / "config.json").read_text())["flags"]["rounds"]
  assert not leftovers(workdir)
  before = hashes(workdir)
  assert run(workdir)[::2] == (0, "")
  assert hashes(workdir) == before


@pytest.mark.slow
def test_what_the_methods_are_told_changes_them_alone(run, folder):
  other = folder / "other"
  code, _, err = run(
    other, "--unlearn_learning_rate=0.001", "--stop_gradient=perturbed"
  )
  assert code == 0, err
  pairs = zip(read_rows(folder / "run"), read_rows(other), strict=True)
  changed = [a["method"] for a, b in pairs if not _same_params(a, b)]
  assert changed == ["ferrari"]


def _same_params(one, other):
  return one["params_sha256"] == other["params_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["bias", "sensitive"])
def test_other_scenarios_work(run, folder, scenario):
  code, _, err = run(folder / scenario, f"--scenario={scenario}")
  assert code == 0, err
  rows = read_rows(folder / scenario)
  described = {metric.name for metric in SCENARIOS[scenario].metrics}
  for row in rows:
    told = {"steps", "roughness"} if row["method"] == "ferrari" else set()
    assert row["metrics"].keys() == described - {"steps"} | told
  retrained = rows[0]["metrics"]
  if scenario == "sensitive":  # it never sees the column
    assert retrained["flip_rate"] == 0
    assert retrained["sensitivity"] < 1e-4  # what keeps norms from 0


@pytest.mark.slow
@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--trigger=0", "--trigger=0: .*size is 0"),
    ("--trigger=9", "--trigger=9: .*must lie inside an image of shape"),
    ("--scenario=bais", r"--scenario=bais.*backdoor\|bias\|sensitive"),
    ("--method=ferari", "'ferari' is unknown; did you mean 'ferrari'"),
    ("--stop_gradient=both", r"--stop_gradient=both.*none\|perturbed\|clean"),
    ("--scenario=bias --clients=5000", "--clients=5000: num_clients is 4999"),
    ("--dataset=digit", "--dataset=digit: .*'digits'.* prepare it there"),
    ("--momentum=-1", "--momentum=-1.*non-negative"),
  ],
)
def test_bad_input_is_refused(run, folder, given, words):
  # In a process of its own: two experiments define flags of one name.
  code, out, err = run(folder / "refused", *given.split())
  assert (code, out) == (1, "")
  assert re.search(words, err), err
  assert "Traceback" not in err
  assert not (folder / "refused").exists()


def dataset(n=40):
  rng = np.random.default_rng(0)
  images = rng.uniform(0.1, 1, (2 * n, 8, 8, 1))
  parts = [
    from_arrays(images[i : i + n], np.arange(n) % 10, np.arange(i, i + n))
    for i in (0, n)
  ]
  return Dataset(*parts, 10, "toy")


@pytest.mark.parametrize("name", ["backdoor", "bias"])
def test_who_holds_what(name):
  """Nobody trains on tests, and who stays does not hold what is forgotten."""
  recipe = Recipe(clients=3)
  task = SCENARIOS[name].make(dataset(), recipe, 0)

  def ids(examples):
    present = examples["weight"] > 0
    return set(examples["id"][present].tolist())

  asked = set(task.forget["id"].tolist())
  assert ids(task.clients) == ids(task.retained) | asked
  assert not ids(task.retained) & asked
  for examples in task.tests.values():
    assert not set(examples["id"].tolist()) & ids(task.clients)
  if name == "backdoor":
    assert set(task.forget["label"].tolist()) == {TARGET}
  else:
    lit = task.forget["input"].sum((1, 2))
    np.testing.assert_array_equal(lit.argmax(-1), task.forget["label"])


def test_a_retrained_model_is_blind_to_the_sensitive_column():
  task = SCENARIOS["sensitive"].make(None, Recipe(), 0)
  assert np.flatnonzero(task.hidden).tolist() == [task.column]
  changed = task.tests["flipped"]["input"] != task.tests["clean"]["input"]
  assert changed.all(axis=0).tolist() == task.hidden.tolist()
