import pytest

from experiments.bench import forgeries
from experiments.bench.forgeries import Outcome


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
  for forger in forgeries.FORGERS:
    found = outcome("unnoticed", moved, "by 1 sigma", forger)
    assert (found.reason is not None) == (forger == "signs")
    assert outcome("unnoticed", moved, "by 100 sigma", forger).reason is None


def test_the_table_counts_every_outcome_once():
  outcomes = [
    *[outcome("noticed")] * 3,
    *[outcome("refused", forger="edits")] * 2,
    outcome("unnoticed", where="certificate: versions.jax"),
    outcome("unnoticed"),
    outcome("crashed", forger="hashes"),
  ]
  text = forgeries.markdown(outcomes)
  rows = [line.split(" | ") for line in text.splitlines() if "| all |" in line]
  assert [[int(x.strip(" |")) for x in row[2:]] for row in rows] == [
    [2, 0, 2, 0, 0],
    [1, 0, 0, 0, 1],
    [5, 3, 0, 2, 0],
  ]
  assert (
    "by who signs: **not explained**: a number scaled, line: sigma." in text
  )
  assert "- **crashed**: a number scaled, line: sigma: why." in text
