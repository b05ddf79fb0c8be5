"""The worked example as a user runs it: what is left, what is refused."""

import contextlib
import re
import time

import numpy as np
import pytest
from sklearn import metrics

from tests.experiments.driver import Driver, hashes, leftovers, read_rows

pytestmark = pytest.mark.slow

SMALL = ("--seeds=1",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("tabular")


@pytest.fixture(scope="module")
def run(folder):
  with contextlib.closing(Driver(folder, "experiments.tabular", SMALL)) as run:
    yield run


@pytest.fixture(scope="module")
def finished(run, folder):
  code, out, err = run(folder / "run")
  assert (code, out) == (0, f"{folder}/run/report.html\n"), err
  return folder / "run"


def test_a_run_leaves_its_report_and_starts_again(run, finished):
  rows = read_rows(finished)
  assert [row["method"] for row in rows] == [
    "retrain",
    "original",
    "finetune",
    "grad_difference",
  ]
  assert len({row["params_sha256"] for row in rows}) == 4
  page = (finished / "report.md").read_text()
  assert "Forget 85 of 427 training records" in page  # a fifth
  assert "Attack by loss" in page
  before = hashes(finished)
  assert run(finished)[::2] == (0, "")
  assert hashes(finished) == before


def test_the_numbers_follow_from_the_evidence(finished):
  for row in read_rows(finished):
    name, found = row["method"], row["metrics"]
    with np.load(finished / f"evidence/seed0/{name}.npz") as arrays:
      scores = {part: arrays[part] for part in ("forget", "test")}
    # Of two classes, the likelier one has a loss below log 2.
    for part, values in scores.items():
      assert found[f"{part}_accuracy"] == np.mean(values > -np.log(2))
    sizes = [len(scores[part]) for part in ("forget", "test")]
    assert sizes == [85, 142]
    auc = metrics.roc_auc_score(
      np.repeat([1, 0], sizes), np.concatenate([*scores.values()])
    )
    assert abs(found["attack_auc"] - auc) < 0.1  # of a sample of as many


def test_a_killed_run_continues_to_the_same_models(run, finished, folder):
  killed = folder / "killed"
  process = run.start(killed, "--checkpoint_seconds=0")
  while not (killed / "checkpoints/seed0/original.underway").exists():
    assert process.poll() is None
    time.sleep(0.005)
  process.kill()
  process.communicate()
  assert not (killed / "results.jsonl").exists()
  code, _, err = run(killed)
  assert code == 0, err
  ends = [
    [(row["params_sha256"], row["metrics"]) for row in read_rows(each)]
    for each in (finished, killed)
  ]
  assert ends[0] == ends[1]
  assert not leftovers(killed)


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--forget_fraction=1", r"--forget_fraction=1.0: .*in \(0, 1\)"),
    ("--forget_fraction=1e-9", "--forget_fraction=1e-09: .*rounds to 0 of 427"),
    ("--method=finetun", "'finetun' is unknown; did you mean 'finetune'"),
    ("--unlearn_steps=0", "--unlearn_steps=0.*positive"),
    ("extra", "unexpected argument 'extra'"),
  ],
)
def test_bad_input_is_refused(run, folder, given, words):
  code, out, err = run(folder / "refused", *given.split())
  assert (code, out) == (1, "")
  assert re.search(words, err), err
  assert "Traceback" not in err
  assert not (folder / "refused").exists()
