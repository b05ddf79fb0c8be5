"""A run that is killed at any moment ends as if nothing had happened."""

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.run import session as sessions
from junlearn.storage import checkpoint
from tests.experiments.driver import Killed, leftovers, read_rows, toy_run

LONG = ("--epochs=60", "--unlearn_epochs=60", "--references=4")
PHASES = (
  "references",
  "seed0/original",
  "seed0/retrain",
  "seed0/finetune",
  "seed0/amun",
)


@pytest.mark.slow
def test_killed_in_every_phase(driver, tmp_path):
  code, _, err = driver(tmp_path / "whole", *LONG)
  assert code == 0, err
  delays = random.Random(0)
  hits = []
  folder = tmp_path / "killed"
  checkpoints = folder / "checkpoints"
  for phase in [phase for phase in PHASES for _ in range(2)]:
    underway = checkpoints / f"{phase}.underway"
    begun = _written(underway)
    process = driver.start(folder, *LONG, "--checkpoint_seconds=0")
    while _written(underway) <= begun:
      if (checkpoints / phase).exists() or process.poll() is not None:
        break
      time.sleep(0.005)
    time.sleep(delays.uniform(0, 0.3))
    process.kill()
    process.communicate()
    hits += [
      path.relative_to(checkpoints).as_posix().partition(".")[0]
      for path in checkpoints.rglob("*.underway")
    ]
  print("killed in", hits)
  assert set(hits) == set(PHASES)
  code, _, err = driver(folder, *LONG)
  assert code == 0, err
  ends = [
    {row["method"]: row["params_sha256"] for row in read_rows(run)}
    | {"references": _record(run, "references")["params_sha256"]}
    for run in (tmp_path / "whole", folder)
  ]
  assert ends[0] == ends[1]
  assert len(read_rows(folder)) == 4
  assert not leftovers(folder)
  for name in ("finetune", "amun"):
    # The curve of a resumed phase is whole, too.
    curves = [
      _record(run, f"seed0/{name}")["curve"]
      for run in (tmp_path / "whole", folder)
    ]
    assert curves[0] == curves[1]


def _written(path):
  """When the last checkpoint at the path was written."""
  try:
    return (path / "sha256.json").stat().st_mtime_ns
  except FileNotFoundError:
    return 0


def _record(run, name):
  return json.loads((run / f"checkpoints/{name}.json").read_text())


def test_killed_at_every_write(tmp_path, monkeypatch):
  """Ends the run before each of its changes to the disk, one after another."""
  expected = toy_run(tmp_path / "whole", steps=30)
  rows = (tmp_path / "whole/results.jsonl").read_text()
  killed = 0
  while True:
    folder = tmp_path / f"killed{killed}"
    with monkeypatch.context() as patch:
      _kill_before(patch, killed)
      try:
        toy_run(folder, steps=30)
        break
      except Killed:
        killed += 1
    outcome = toy_run(folder, steps=30)
    assert outcome.params_sha256 == expected.params_sha256
    assert outcome.curve == expected.curve
    assert outcome.notes == expected.notes
    assert (folder / "results.jsonl").read_text() == rows
    assert not leftovers(folder), killed
  assert killed > 20


@pytest.mark.parametrize("standing", [("",), (".old",), ("", ".old")])
def test_a_killed_save_leaves_a_checkpoint(tmp_path, monkeypatch, standing):
  """Whatever an earlier kill had left: the path, the old one or both."""
  old, new = ({"w": np.full(3, value)} for value in (1.0, 2.0))
  killed = 0
  while True:
    path = tmp_path / str(killed) / "x"
    checkpoint.save(path, old)
    path.rename(kept := path.with_name("kept"))
    for suffix in standing:
      shutil.copytree(kept, path.with_name(f"x{suffix}"))
    with monkeypatch.context() as patch:
      _kill_before(patch, killed)
      try:
        checkpoint.save(path, new)
        break
      except Killed:
        killed += 1
    assert checkpoint.load(path, old)["w"].tolist() in ([1] * 3, [2] * 3)
  assert killed >= 4


def _kill_before(patch, count):
  """Lets so many changes to the disk happen; the next one happens half."""
  left = iter(range(count))

  def killing(change, half=lambda *_: None):
    def changed(*args, **kwargs):
      if next(left, None) is None:
        half(*args)
        raise Killed
      return change(*args, **kwargs)

    return changed

  def half_removed(path, *_):
    for file in [f for f in Path(path).rglob("*") if f.is_file()][:2]:
      file.unlink()

  def half_saved(path, *_):
    (path / "half").mkdir(parents=True)

  patch.setattr(Path, "rename", killing(Path.rename))
  patch.setattr(Path, "replace", killing(Path.replace))
  patch.setattr(shutil, "rmtree", killing(shutil.rmtree, half_removed))
  patch.setattr(checkpoint, "_write", killing(checkpoint._write, half_saved))
  patch.setattr("os.fsync", killing(lambda _: None))


def test_seconds_add_up_over_restarts(tmp_path, monkeypatch):
  class Clock(sessions.Meter):
    def read(self):
      return np.array([1.0, 0.25])

  monkeypatch.setattr(sessions, "Meter", Clock)
  for _ in range(3):
    with monkeypatch.context() as patch:
      patch.setattr(
        sessions.Session,
        "save",
        _killing_after(sessions.Session.save),
      )
      with pytest.raises(Killed):
        toy_run(tmp_path, steps=40)
  outcome = toy_run(tmp_path, steps=40)
  assert (outcome.seconds, outcome.compile) == (4.0, 1.0)


def _killing_after(save):
  def saved(*args):
    save(*args)
    raise Killed

  return saved
