"""What a run leaves behind, and how it behaves where it is watched."""

import fcntl
import importlib.metadata
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import bar
from experiments.run.meter import Meter, peak_memory
from experiments.run.workdir import PRIVATE, Workdir
from junlearn import report
from tests.experiments.driver import ROOT, hashes, leftovers, read_rows, toy_run


@pytest.mark.slow
def test_run_leaves_what_the_contract_names(finished):
  config = json.loads((finished / "config.json").read_text())
  assert config["command"].startswith("python -m experiments.classification")
  assert config["flags"]["method"] == ["finetune", "amun"]
  assert {"workdir", "model", "cache_dir", "checkpoint_seconds"} <= set(
    config["flags"]
  )
  assert config["versions"]["jax"] == importlib.metadata.version("jax")
  assert config["versions"].keys() >= {"python", "flax", "optax"}
  assert config["device"]["count"] >= 1
  assert config["commit"]

  rows = read_rows(finished)
  methods = ["retrain", "original", "finetune", "amun"]
  assert [(row["method"], row["seed"]) for row in rows] == [
    (method, 0) for method in methods
  ]
  for row in rows:
    assert row.keys() == {
      "method",
      "seed",
      "metrics",
      "seconds",
      "peak_memory_bytes",
      "params_sha256",
    }
    assert row["seconds"].keys() == {"unlearn", "retrain", "audit", "compile"}
    assert all(value >= 0 for value in row["seconds"].values())
    assert np.isfinite(list(row["metrics"].values())).all()
    assert row["peak_memory_bytes"] > 2**20
    assert len(bytes.fromhex(row["params_sha256"])) == 32
  assert len({row["params_sha256"] for row in rows}) == 4
  assert rows[-1]["metrics"]["failed"] == 0

  files = hashes(finished)
  assert {"report.md", "report.html"} <= files.keys()
  for method in methods:
    assert f"evidence/seed0/{method}.npz" in files
    assert f"checkpoints/seed0/{method}.json" in files
    assert f"checkpoints/seed0/{method}/sha256.json" in files
  assert not leftovers(finished)


@pytest.mark.slow
def test_second_start_is_quick_and_changes_nothing(driver, finished):
  before = hashes(finished)
  start = time.monotonic()
  # Another --checkpoint_seconds is the same run: no result depends on it.
  code, _, err = driver(finished, "--checkpoint_seconds=1")
  assert (code, err) == (0, "")
  assert time.monotonic() - start < 20
  assert hashes(finished) == before


@pytest.mark.slow
def test_what_is_missing_is_computed_again(driver, finished, tmp_path):
  copy = tmp_path / "run"
  subprocess.run(["cp", "-a", finished, copy], check=True)
  (copy / "evidence/seed0/finetune.npz").unlink()
  subprocess.run(["rm", "-r", copy / "checkpoints/seed0/amun"], check=True)
  # As if killed before a finished phase was cleared.
  (copy / "checkpoints/seed0/retrain.underway").mkdir()
  (copy / "checkpoints/seed0/retrain.underway.partial").mkdir()
  code, _, err = driver(copy)
  assert code == 0, err
  assert read_rows(copy) == read_rows(finished)
  assert not leftovers(copy)
  arrays = [
    np.load(d / "evidence/seed0/finetune.npz") for d in (copy, finished)
  ]
  for name in arrays[1]:
    np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


@pytest.mark.slow
def test_interrupt_is_one_line_and_the_run_continues(
  driver, finished, tmp_path
):
  process = driver.start(tmp_path / "run")
  while not (tmp_path / "run/checkpoints/seed0/original").is_dir():
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 130
  assert err == "interrupted; the same command continues.\n"
  code, _, err = driver(tmp_path / "run")
  assert code == 0, err
  hashes_of = [
    [row["params_sha256"] for row in read_rows(folder)]
    for folder in (tmp_path / "run", finished)
  ]
  assert hashes_of[0] == hashes_of[1]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("flags", "methods"),
  [
    pytest.param(
      (
        "--forget_ids=1,2,3",
        "--nouse_retain",
        "--method=ascent,random_label,amun",
        "--unlearn_learning_rates=amun=0.001",
      ),
      ["ascent", "random_label", "amun"],
      id="ids",
    ),
    pytest.param(
      ("--model=cnn", "--forget_class=3", "--method=amun_deletion"),
      ["amun_deletion"],
      id="class",
    ),
    pytest.param(
      (
        "--num_train=2",
        "--num_test=2",
        "--forget_fraction=0.5",
        "--unlearn_epochs=0",
      ),
      ["finetune", "amun"],
      id="least",
    ),
  ],
)
def test_other_settings_work(driver, tmp_path, flags, methods):
  code, _, err = driver(tmp_path, *flags)
  assert code == 0, err
  assert "Warning" not in err
  rows = read_rows(tmp_path)
  assert [row["method"] for row in rows] == ["retrain", "original", *methods]
  if "--unlearn_epochs=0" in flags:
    assert len({row["params_sha256"] for row in rows[1:]}) == 1


@pytest.mark.slow
def test_bar_on_a_terminal_ends_full(driver, finished):
  ours, theirs = pty.openpty()
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
  with subprocess.Popen(
    driver.command(finished),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=theirs,
  ):
    os.close(theirs)
    seen = b""
    while part := _read(ours):
      seen += part
  os.close(ours)
  lines = seen.decode().strip().split("\r")
  assert lines[0].startswith("0%|")
  assert lines[-1].startswith("100%|")
  assert "\n" not in seen.decode().strip()


def _read(terminal):
  try:
    return os.read(terminal, 4096)
  except OSError:  # the other side was closed
    return b""


def test_plain_lines_where_there_is_no_terminal(capsys):
  progress = bar.Bar(40, seconds=0)
  progress.skip(10)
  progress.update(10, "seed0/original, loss 0.5")
  progress.close()
  err = capsys.readouterr().err
  assert err.startswith(" 50%  seed0/original, loss 0.5, about ")
  assert err.endswith(" s left\n")
  assert err.count("\n") == 1


def test_what_was_not_foreseen_counts_as_expected_then(capsys):
  progress = bar.Bar(10, seconds=0)
  progress.update(10, "a")
  progress.update(5, "b")
  lines = capsys.readouterr().err.splitlines()
  assert [line[:6] for line in lines] == ["100%  ", "100%  "]
  assert progress.done == 15


def test_time_left_does_not_count_what_was_skipped(capsys, monkeypatch):
  now = iter([0.0, 10.0])
  monkeypatch.setattr(bar.time, "monotonic", lambda: next(now))
  progress = bar.Bar(100)
  progress.skip(80)
  progress.update(10, "x, loss 1")
  assert capsys.readouterr().err == " 90%  x, loss 1, about 10 s left\n"


@pytest.mark.slow
def test_help_is_readable(driver, tmp_path):
  code, out, err = driver(tmp_path, "--help")
  assert (code, err) == (1, "")  # as absl has it
  assert out.startswith("Deletes training records")
  for flag in ("--method", "--forget_ids", "--data_dir", "--checkpoint_secon"):
    assert flag in out
  assert max(map(len, out.splitlines())) <= 80


def test_compilation_is_counted_once_and_pauses_not_at_all():
  inner = jax.jit(lambda x: jnp.sin(x).sum())

  def step(carry, _):
    return jax.grad(lambda x: inner(x) * inner(2 * x))(carry), None

  @jax.jit
  def nested(x):
    return jax.lax.scan(step, x, None, 3)[0] + jax.jit(jnp.cos)(x)

  start = time.monotonic()
  meter, unpaused = Meter(), Meter()
  nested(jnp.arange(3.0)).block_until_ready()
  with meter:
    time.sleep(0.3)
    jax.jit(lambda x: x * 5)(jnp.ones(7)).block_until_ready()
  seconds, compiled = meter.read()
  wall = time.monotonic() - start
  assert 0 < compiled < unpaused.read()[1] < wall - 0.3
  assert seconds + compiled <= wall - 0.3
  meter = Meter()
  nested(jnp.arange(3.0)).block_until_ready()
  assert meter.read()[1] < 0.1 * compiled


def test_peak_memory_counts_from_the_last_meter():
  Meter()
  block = np.ones(2**25)  # 256 MiB, touched
  high = peak_memory()
  del block
  before = peak_memory()
  Meter()
  # The kernel counts pages in batches.
  assert before == pytest.approx(high, rel=0.01)
  assert peak_memory() < high - 2**27


def test_workdir_keeps_config_and_rows(tmp_path):
  flags = {"a": (1, 2), "workdir": "x"}
  with Workdir(tmp_path / "new/run", flags) as first:
    first.add_row({"method": "m", "seed": 0, "metrics": {}})
    first.write_arrays("deep/er/x.npz", {"x": np.arange(3)})
  with Workdir(tmp_path / "new/run", flags | {"workdir": "y"}) as second:
    assert second.rows == first.rows
    assert second.config["flags"]["workdir"] == "x"
    assert second.row("m", 0)["metrics"] == {}
    assert second.row("m", 1) is None
    assert second.read_arrays("deep/er/x.npz")["x"].tolist() == [0, 1, 2]
    assert second.read_arrays("none.npz") is None


@pytest.fixture(params=[0o000, 0o022], ids=["umask 000", "umask 022"])
def umask(request):
  before = os.umask(request.param)
  yield request.param
  os.umask(before)


def modes(folder):
  """Of files and folders, by path relative to the folder."""
  return {
    path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777
    for path in folder.rglob("*")
  }


def test_what_knows_the_records_is_the_owners_alone(tmp_path, umask):
  toy_run(tmp_path)
  with Workdir(tmp_path, {"steps": 20}) as workdir:
    workdir.write_bytes("private/salt", b"x")
    workdir.write("releases/toy/ledger.jsonl", "{}")
  found = modes(tmp_path)
  for name in (*PRIVATE, "checkpoints/seed0", "checkpoints/seed0/toy"):
    assert found[name] == 0o700
  for name in (
    "private/salt",
    "evidence/toy.npz",
    "checkpoints/seed0/toy.json",
  ):
    assert found[name] == 0o600
  for name in ("config.json", "results.jsonl", "releases/toy/ledger.jsonl"):
    assert found[name] == 0o666 & ~umask


def test_an_older_run_is_tightened(tmp_path, umask):
  toy_run(tmp_path)
  for name in ("checkpoints", "evidence"):
    (tmp_path / name).chmod(0o755)
  with Workdir(tmp_path, {"steps": 20}, private=True):
    pass
  found = modes(tmp_path)
  assert found["checkpoints"] == found["evidence"] == 0o700
  assert found["config.json"] == found["results.jsonl"] == 0o600


@pytest.mark.parametrize(
  "given", [["--forget_ids=31337,alice"], ["-forget_ids", "31337,alice"]]
)
def test_a_private_run_names_no_record_in_public(
  tmp_path, umask, monkeypatch, given
):
  monkeypatch.setattr("sys.argv", ["run", "--steps=2", *given, "--debug"])
  ids = ["31337", "alice"]
  with Workdir(tmp_path, {"forget_ids": ids, "b": 2}, private=True) as workdir:
    workdir.add_row({"method": "m", "seed": 0, "metrics": {}})
    workdir.write_report(
      title="Title",
      request=report.Deletion(ids, 9, "By id.", private=True),
      metrics=[],
      not_proven=[],
    )
  for name in ("config.json", "results.jsonl"):
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
  assert (
    json.loads((tmp_path / "config.json").read_text())["flags"]["forget_ids"]
    == ids
  )
  markdown = (tmp_path / "report.md").read_text()
  assert "--steps=2" in markdown
  assert "--debug" in markdown
  assert "<left out>" in markdown
  for text in (markdown, (tmp_path / "report.html").read_text()):
    assert not [i for i in ids if i in text]
