"""Several processes give the results of one, and end together."""

import json
import re
import signal
import time

import pytest
from absl import flags

from experiments.classification import __main__ as classification
from experiments.run import job
from tests.experiments.driver import leftovers, read_rows

LONG = ("--epochs=30", "--references=4", "--method=finetune")
LOST = (
  r"error: this process cannot go on \(.*\), most likely because another "
  "process of the job ended; the same commands, all started again, continue."
)


def ends(process):
  """Exit code, stdout and the last line of stderr."""
  out, err = process.communicate(timeout=200)
  return process.returncode, out, err.splitlines()[-1] if err else ""


def fingerprints(folder):
  """Hashes of the params of all phases."""
  references = (folder / "checkpoints/references.json").read_text()
  return {row["method"]: row["params_sha256"] for row in read_rows(folder)} | {
    "references": json.loads(references)["params_sha256"]
  }


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(driver, finished, tmp_path):
  folder = tmp_path / "run"
  first, second = driver.start_job(folder)
  code, out, err = ends(first)
  assert (code, out) == (0, f"{folder}/report.html\n"), err
  assert ends(second) == (0, "", "")  # the first one speaks
  assert fingerprints(folder) == fingerprints(finished)
  assert [row["metrics"] for row in read_rows(folder)] == [
    row["metrics"] for row in read_rows(finished)
  ]
  assert not leftovers(folder)
  device = json.loads((folder / "config.json").read_text())["device"]
  assert (device["count"], device["processes"]) == (4, 2)


@pytest.mark.slow
def test_a_job_that_lost_a_process_ends_and_continues(driver, tmp_path):
  """Dies twice among the references; then one process takes over from two."""
  code, _, err = driver(tmp_path / "whole", *LONG)
  assert code == 0, err
  folder = tmp_path / "killed"
  underway = folder / "checkpoints/references.underway/sha256.json"
  for victim in (1, 0):
    before = _written(underway)
    processes = driver.start_job(folder, *LONG, "--checkpoint_seconds=0")
    while _written(underway) <= before:
      assert all(process.poll() is None for process in processes)
      time.sleep(0.01)
    processes[victim].kill()
    start = time.monotonic()
    out, err = processes[1 - victim].communicate(timeout=200)
    assert out == ""
    if victim:
      assert processes[0].returncode == 1
      assert re.fullmatch(LOST, err.splitlines()[-1]), err
    else:  # JAX may abort before Python can speak
      assert processes[1].returncode in (1, -signal.SIGABRT)
      assert re.search("another (task|process)", err), err
    assert time.monotonic() - start < 20
    assert underway.exists()
    processes[victim].communicate()
  code, _, err = driver(folder, *LONG)
  assert code == 0, err
  assert fingerprints(folder) == fingerprints(tmp_path / "whole")
  assert not leftovers(folder)


def _written(path):
  try:
    return path.stat().st_mtime_ns
  except FileNotFoundError:
    return 0


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_other(driver, tmp_path):
  first, second = driver.start_job(tmp_path / "run", second=("--seeds=2",))
  code, out, err = ends(second)
  assert (code, out) == (1, "")
  assert re.match("error: --workdir=.*--seeds was 1 and is 2.*; repeat", err)
  code, out, err = ends(first)
  assert (code, out) == (1, "")
  assert re.fullmatch(LOST, err), err


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ("--process_id=0", "only --process_id given; a job needs all of --coord"),
    (
      "--coordinator_address=a:1 --num_processes=2",
      "only --coordinator_address and --num_processes given",
    ),
    (
      "--coordinator_address=a:1 --num_processes=2 --process_id=2",
      "--process_id=2; it must be below --num_processes=2",
    ),
    (
      "--coordinator_address=here --num_processes=2 --process_id=0",
      "--coordinator_address=here; it must be host:port",
    ),
    ("--coordinator_address=a:1 --num_processes=0", "num_processes=0.*posit"),
    ("--process_id=-1", "process_id=-1.*non-negative"),
    (
      "--multiprocess --num_processes=2",
      "--multiprocess finds --num_processes by itself; give one or the other",
    ),
  ],
)
def test_flags_that_make_no_job(driver, tmp_path, given, words):
  command = driver.command(tmp_path / "run", *given.split())[2:]
  for flag in flags.FLAGS.get_key_flags_for_module(classification):
    flag.unparse()  # from the test before
  with pytest.raises((ValueError, flags.Error), match=words) as caught:
    flags.FLAGS(command)
    job.join(quiet=False)
  assert "\n" not in str(caught.value).strip()


@pytest.mark.slow
def test_a_machine_that_is_no_cluster(driver, tmp_path):
  code, out, err = driver(tmp_path / "run", "--multiprocess")
  assert (code, out) == (1, "")
  assert re.fullmatch(
    r"error: --multiprocess: JAX finds no cluster here; give .* instead\.\n",
    err,
  )
  assert not (tmp_path / "run").exists()


def test_flags_of_adopted_modules_are_the_programs_own():
  """What distinguishes a run from another must stand in its config."""
  names = {
    flag.name for flag in flags.FLAGS.get_key_flags_for_module(classification)
  }
  assert {"method", "data_dir", "debug", "process_id"} <= names
