"""The program in the README runs and does what the README says."""

import pathlib
import re
import subprocess
import sys

from junlearn.certify.calibrate import classical_sigma

README = pathlib.Path(__file__).parents[1] / "README.md"


def run(number):
  """What a program of the README prints, in words by line."""
  programs = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
  printed = subprocess.run(
    [sys.executable, "-c", programs[number]],
    capture_output=True,
    text=True,
    check=True,
    cwd=README.parent,
  ).stdout
  return [line.split() for line in printed.splitlines()]


def test_own_model_program():
  rows = run(0)
  confidence = {(row[0], row[1]): float(row[3]) for row in rows}
  assert len(confidence) == 6
  # Unlearning lowers the confidence on the deleted records, not on the others.
  assert confidence["unlearned", "forget"] < confidence["original", "forget"]
  assert confidence["unlearned", "retain"] > 0.9


def test_language_program():
  found = {(name, part): float(p) for name, part, p in run(1)}
  assert len(found) == 6
  # The facts lose their probability, the others keep most of it.
  assert found["original", "forget"] > 0.9
  assert found["unlearned", "forget"] < 0.2
  assert found["unlearned", "retain"] > found["unlearned", "forget"] + 0.4


def test_certified_program():
  (distance, sigma), *problems = run(2)
  assert not any(problems)
  assert 0 < float(distance) <= 1e-6
  # The classical formula is above the exact one, at a distance of 2e-6.
  classical = classical_sigma(1.0, 1e-5, 2e-6)
  assert classical / 2 < float(sigma) < classical


def test_folders_exist():
  places = README.read_text().partition("## Where things are")[2]
  named = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", places, re.M)
  paths = [path for cell in named for path in re.findall(r"`(.*?)`", cell)]
  assert len(paths) >= 8
  for path in paths:
    assert list(README.parent.glob(path)), path
