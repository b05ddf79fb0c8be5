"""The program in the README runs and does what the README says."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_own_model_program():
  (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
  printed = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    check=True,
    cwd=README.parent,
  ).stdout
  rows = [line.split() for line in printed.splitlines()]
  confidence = {(row[0], row[1]): float(row[3]) for row in rows}
  assert len(confidence) == 6
  # Unlearning lowers the confidence on the deleted records, not on the others.
  assert confidence["unlearned", "forget"] < confidence["original", "forget"]
  assert confidence["unlearned", "retain"] > 0.9


def test_folders_exist():
  named = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", README.read_text(), re.M)
  paths = [path for cell in named for path in re.findall(r"`(.*?)`", cell)]
  assert len(paths) >= 8
  for path in paths:
    assert list(README.parent.glob(path)), path
