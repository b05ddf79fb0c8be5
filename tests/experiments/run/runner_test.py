"""The one loop of all experiments, on a study of one number."""

import json

import numpy as np
import pytest
from absl import flags

from experiments.run import findings, program, runner, tuning
from experiments.run.options import Run
from experiments.run.workdir import Workdir
from junlearn.loop import NonFiniteError
from tests.experiments.driver import hashes, leftovers, read_rows
from tests.experiments.run.toy_study import STEPS, Task, Toy

assert program  # defines --checkpoint_seconds


@pytest.fixture(autouse=True)
def parsed():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(["test"])


def run(study, folder, seeds=2):
  return runner.run(study, Run(folder, ("halve",), seeds), options={})


def test_rows_are_of_both_references_and_every_method(tmp_path):
  page = run(Toy(), tmp_path)
  assert page == tmp_path / "report.html"
  rows = read_rows(tmp_path)
  names = ["retrain", "original", "halve"]
  assert [(row["method"], row["seed"]) for row in rows] == [
    (name, seed) for seed in range(2) for name in names
  ]
  values = [row["metrics"]["value"] for row in rows]
  # 1 / 2**4; 10 / 2**5 and 11 / 2**5; what is left of these after 2**3.
  expected = [1 / 16, 10 / 32, 10 / 256, 1 / 16, 11 / 32, 11 / 256]
  np.testing.assert_allclose(values, expected, rtol=1e-6)
  assert not leftovers(tmp_path)


def test_several_requests_have_rows_evidence_and_chapters_of_their_own(
  tmp_path,
):
  run(Toy(["one", "two"]), tmp_path)
  rows = read_rows(tmp_path)
  assert len(rows) == 2 * 2 * 3
  assert {row["request"] for row in rows} == {"one", "two"}
  assert (tmp_path / "evidence/seed1/two/halve.npz").exists()
  page = (tmp_path / "report.md").read_text()
  assert "one: the request" in page
  assert "two: the request" in page


def test_the_runner_adds_up_what_the_phases_state(tmp_path):
  study = Toy(["one", "two"])
  run(study, tmp_path)
  each = STEPS["original"] + 2 * (STEPS["retrain"] + STEPS["halve"])
  assert study.session.bar.done == STEPS["shared"] + 2 * each
  tasks = [study.tasks(seed) for seed in range(2)]
  assert runner.total(study, ("halve",), tasks) == study.session.bar.done


def test_nothing_is_done_twice(tmp_path):
  run(Toy(), tmp_path)
  before = hashes(tmp_path)
  again = Toy()
  run(again, tmp_path)
  assert again.audited == []
  assert hashes(tmp_path) == before
  assert again.session.bar.done == runner.total(
    again, ("halve",), [again.tasks(seed) for seed in range(2)]
  )


def test_what_is_missing_is_done_again_and_alone(tmp_path):
  run(Toy(), tmp_path)
  before = hashes(tmp_path)
  (tmp_path / "evidence/seed1/halve.npz").unlink()
  again = Toy()
  run(again, tmp_path)
  assert again.audited == [(1, "", "halve")]
  assert read_rows(tmp_path) == [
    json.loads(line)
    for line in (tmp_path / "results.jsonl").read_text().splitlines()
  ]
  assert hashes(tmp_path).keys() == before.keys()
  assert len(read_rows(tmp_path)) == 6


def test_a_request_that_does_not_fit_leaves_no_folder(tmp_path):
  class Unfit(Toy):
    def tasks(self, seed):
      if seed:
        raise ValueError("forget_fraction is 2; it must be in (0, 1).")
      return super().tasks(seed)

  with pytest.raises(ValueError, match="forget_fraction is 2"):
    run(Unfit(), tmp_path / "run")
  assert not (tmp_path / "run").exists()


class Shared(Toy):
  """Forgets to tell the requests apart in the names of its phases."""

  def train(self, task, seed):
    return super().train(task and Task("", task.number), seed)


def test_requests_do_not_share_phases(tmp_path):
  words = r"seed0/two/retrain has no phase of its own; the names of phases"
  with pytest.raises(ValueError, match=words):
    run(Shared(["one", "two"]), tmp_path)
  assert {row["request"] for row in read_rows(tmp_path)} == {"one"}


@pytest.mark.parametrize("names", [["one", "one"], ["", ""]])
def test_requests_of_one_name_leave_no_folder(tmp_path, names):
  with pytest.raises(ValueError, match=r"seed 0 has the requests \["):
    run(Toy(names), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_seeds_with_other_requests_leave_no_folder(tmp_path):
  class Uneven(Toy):
    def tasks(self, seed):
      return super().tasks(seed)[: 2 - seed]

  with pytest.raises(ValueError, match=r"seed 1 has the requests \['one'\]"):
    run(Uneven(["one", "two"]), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_method_that_diverges_leaves_what_was_done(tmp_path):
  class Diverging(Toy):
    def unlearn(self, method, case):
      if case.seed:
        raise NonFiniteError("halve: loss is not finite at step 2.")
      return super().unlearn(method, case)

  with pytest.raises(NonFiniteError, match="at step 2"):
    run(Diverging(), tmp_path)
  assert len(read_rows(tmp_path)) == 5
  run(Toy(), tmp_path)
  assert len(read_rows(tmp_path)) == 6


def test_findings_pool_the_seeds(tmp_path):
  run(Toy(), tmp_path)
  with Workdir(tmp_path, {}) as workdir:
    found = findings.collect(workdir, "", 2)
  assert found.unlearned == ["halve"]
  np.testing.assert_allclose(
    found.pooled("original", "values"), [10 / 32, 11 / 32], rtol=1e-6
  )
  assert found.metrics("original")["value"] == found.first("original")["values"]
  with pytest.raises(KeyError):
    found.metrics("none")


def test_the_least_mean_score_wins_and_divergence_loses():
  def score(rate, case):
    if rate > 1:
      raise NonFiniteError("loss is not finite.")
    return abs(rate - case)

  grid = (0.1, 0.5, 0.9, 2.0)
  found = tuning.scores(score, grid, [0.4, 0.8])
  assert found[0.5] == pytest.approx(0.2)
  assert found[2.0] == np.inf
  assert tuning.best(score, grid, [0.4, 0.8]) == 0.5  # the first of two equals
  assert tuning.best(score, (0.1, 0.9), [0.4, 0.8]) == 0.9
