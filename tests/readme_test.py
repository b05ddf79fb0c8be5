"""The program in the README runs and does what the README says."""

import re

from junlearn import methods
from tests import pages
from tests.pages import README


def test_own_model_program():
  rows = pages.printed(README)
  confidence = {(row[0], row[1]): float(row[3]) for row in rows}
  assert len(confidence) == 6
  # Unlearning lowers the confidence on the deleted records, not on the others.
  assert confidence["unlearned", "forget"] < confidence["original", "forget"]
  assert confidence["unlearned", "retain"] > 0.9


def test_counts_all_methods():
  (number,) = re.findall(r"\[(\d+) methods\]", README.read_text())
  assert int(number) == len(methods.cards())


def test_folders_exist():
  places = README.read_text().partition("## Where things are")[2]
  named = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", places, re.M)
  paths = [path for cell in named for path in re.findall(r"`(.*?)`", cell)]
  assert len(paths) >= 8
  for path in paths:
    assert list(README.parent.glob(path)), path


def test_is_read_in_five_minutes():
  assert len(README.read_text().splitlines()) <= 140
