"""What is known to go unnoticed, and the table of all outcomes."""

import pytest

from experiments.bench.forgeries import outcomes
from experiments.bench.forgeries.outcomes import Outcome


def outcome(kind, edit="a number scaled", where="line: sigma", forger="signs"):
  return Outcome(edit, where, forger, kind, "why")


@pytest.mark.parametrize(
  ("where", "known"),
  [
    ("certificate: versions.jax", True),
    ("config: flags.finetune_rounds", True),
    ("certificate: sigma", False),
    ("config: flags.epsilon", False),
    ("config: flags.seeds", False),
    ("line: spent", False),
  ],
)
def test_what_is_known_to_go_unnoticed(where, known):
  found = outcome("unnoticed", where=where)
  assert (found.reason is not None) == known


def test_only_who_signs_may_move_a_number_within_the_noise():
  moved = "a released number moved"
  for forger in outcomes.FORGERS:
    found = outcome("unnoticed", moved, "by 1 sigma", forger)
    assert (found.reason is not None) == (forger == "signs")
    assert outcome("unnoticed", moved, "by 100 sigma", forger).reason is None


def test_the_table_counts_every_outcome_once():
  found = [
    *[outcome("noticed")] * 3,
    *[outcome("refused", forger="edits")] * 2,
    outcome("unnoticed", where="certificate: versions.jax"),
    outcome("unnoticed"),
    outcome("crashed", forger="hashes"),
  ]
  lines = list(outcomes.lines(found))
  rows = [line.split(" | ") for line in lines if "| all |" in line]
  assert [[int(x.strip(" |")) for x in row[2:]] for row in rows] == [
    [2, 0, 2, 0, 0],
    [1, 0, 0, 0, 1],
    [5, 3, 0, 2, 0],
  ]
  wrong = "- 1 by who signs: **not explained**: a number scaled, line: sigma."
  assert wrong in lines
  assert "- **crashed**: a number scaled, line: sigma: why." in lines
  assert [o.is_wrong for o in found] == [False] * 6 + [True] * 2
