"""The decentralised experiment as a user starts it."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments.conftest import ROOT, Driver, read_rows

pytestmark = pytest.mark.slow

SMALL = (
  "--clients=4",
  "--num_train=200",
  "--num_test=100",
  "--seeds=1",
  "--l2=0.1",
  "--rounds=200",
  "--finetune_rounds=3",
  "--tolerance=1e-4",
)
RELEASE = "releases/seed0/newton"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("network")
  driver = Driver(folder, "experiments.decentralized", SMALL)
  with contextlib.closing(driver):
    yield driver


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
  """A run of two successive requests; tests leave it as it is."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  code, out, err = run(workdir, "--requests=2")
  assert (code, out) == (0, f"{workdir}/report.html\n"), err
  return workdir


def verify(workdir):
  """Exit code and lines of the verification."""
  command = [sys.executable, "-m", "experiments.verify_certificate"]
  ended = subprocess.run(
    [*command, str(workdir)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  return ended.returncode, (ended.stdout + ended.stderr).splitlines()


def metrics(workdir):
  return {row["method"]: row["metrics"] for row in read_rows(workdir)}


def kept(workdir, phase):
  """What a phase's record says of its params."""
  path = workdir / "checkpoints" / f"{phase}.json"
  return json.loads(path.read_text())["params_sha256"]


def test_a_run_leaves_what_it_must(finished):
  found = metrics(finished)
  assert list(found) == [
    "retrain", "original", "newton", "consensus", "finetune"
  ]  # fmt: skip
  newton, original = found["newton"], found["original"]
  assert newton["distance_before_noise"] < 1e-3 < original["distance"]
  assert newton["bound"] <= 1e-3
  # The noise is nearly all of what a release is off by.
  parameters = 4 * (64 * 10 + 10)
  expected = newton["sigma"] * np.sqrt(parameters)
  assert newton["distance"] == pytest.approx(expected, rel=0.1)
  influence = np.load(finished / "evidence/seed0/influence.npz")["norm"]
  before = np.load(finished / "evidence/seed0/original.npz")["distances"]
  np.testing.assert_allclose(influence, before, rtol=0.05)
  page = (finished / "report.html").read_text()
  assert "certificate.json" in page and "<svg" in page


def test_two_releases_share_the_budget(finished):
  lines = (finished / RELEASE / "ledger.jsonl").read_text().splitlines()
  first, second = map(json.loads, lines)
  assert second["spent"] == pytest.approx(np.sqrt(2) * first["spent"])
  assert second["left"] == pytest.approx(0, abs=1e-2)
  assert second["params_before"] != first["params_after"]


def test_everything_is_verified(finished):
  code, lines = verify(finished)
  assert code == 0, lines
  assert len(lines) == 2  # a ledger each of newton and consensus


def test_an_edited_byte_is_found(finished, tmp_path):
  copy = shutil.copytree(finished, tmp_path / "copy")
  path = copy / RELEASE / "0" / "certificate.json"
  path.write_text(path.read_text().replace('"epsilon": 0', '"epsilon": 1', 1))
  code, lines = verify(copy)
  assert code == 1
  assert any(f"{RELEASE}/0/certificate.json: sigma" in line for line in lines)


def test_a_continued_run_draws_no_noise_anew(run, finished, tmp_path):
  copy = shutil.copytree(finished, tmp_path / "copy")
  (copy / "results.jsonl").unlink()
  code, _, err = run(copy, "--requests=2")
  assert code == 0, err
  for before, after in zip(read_rows(finished), read_rows(copy), strict=True):
    assert before["params_sha256"] == after["params_sha256"]


def test_a_spent_budget_ends_the_run(run, tmp_path):
  workdir = tmp_path / "run"
  code, out, err = run(workdir, "--requests=2", "--planned_requests=1")
  assert (code, out) == (1, "")
  assert "retrain now" in err.splitlines()[-1]
  ledger = (workdir / RELEASE / "ledger.jsonl").read_text().splitlines()
  assert len(ledger) == 1
  assert not (workdir / "checkpoints/seed0/newton/1-released").exists()


def test_killed_and_started_again(run, finished, tmp_path):
  workdir = tmp_path / "run"
  flags = ("--requests=2", "--checkpoint_seconds=0")
  for seconds in (4, 6, 8):  # while it starts, trains, releases
    process = run.start(workdir, *flags)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.communicate(timeout=seconds)
    process.kill()
    process.communicate()
  code, _, err = run(workdir, *flags)
  assert code == 0, err
  for phase in ("original", "retrain", "finetune", "newton/1-corrected"):
    assert kept(workdir, f"seed0/{phase}") == kept(finished, f"seed0/{phase}")


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--edges=0-1,2-3", "not connected"),
    ("--edges=0:1", "each must be whole numbers as 0-0"),
    ("--max_distance=1e-15", "nothing was released, retrain instead."),
    ("--rounds=2", "above --tolerance=0.0001; take more --rounds."),
    ("--model=mlp", "--model=mlp: the model is not linear in its parameters"),
    ("--precision=float32", "newton, consensus are certified, which needs"),
    ("--forget_client=4", "--forget_client=4: client is 4; it must be in"),
    ("--requests=40", "records to forget"),
  ],
)
def test_bad_input(run, tmp_path, flag, words):
  code, out, err = run(tmp_path / "run", flag)
  assert (code, out) == (1, "")
  last = err.splitlines()[-1]
  assert last.startswith("error: ") and words in last
  assert "Traceback" not in err
  assert not list((tmp_path / "run").glob("**/*-released"))


def test_a_job_of_two_processes(run, finished, tmp_path):
  """Clients spread over four devices of two processes."""
  workdir = tmp_path / "job"
  processes = run.start_job(workdir, "--requests=2", "--backend=pmap")
  outputs = [process.communicate(timeout=300) for process in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  alone, spread = metrics(finished), metrics(workdir)
  for method in ("original", "finetune"):
    for name, value in alone[method].items():
      assert spread[method][name] == pytest.approx(value, rel=1e-9), name
  assert spread["newton"]["bound"] <= 1e-3
