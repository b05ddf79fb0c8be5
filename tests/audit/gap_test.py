"""Gaps to retraining against hand-computed tables."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.audit import gap

# SalUn, Table 1, random 10 %: the published average gaps are of these rows.
RETRAIN = {"ua": 5.24, "ra": 100.0, "ta": 94.26, "mia": 12.88}
PUBLISHED = {
  3.78: {"ua": 0.63, "ra": 99.88, "ta": 94.06, "mia": 2.70},
  7.15: {"ua": 7.61, "ra": 99.67, "ta": 92.83, "mia": 37.36},
  1.15: {"ua": 2.85, "ra": 99.62, "ta": 93.93, "mia": 14.39},
}

fractions = st.floats(0, 1)
tables = st.fixed_dictionaries({"forget": fractions, "test": fractions})


@pytest.mark.parametrize(("published", "metrics"), PUBLISHED.items())
def test_average_gap_reproduces_published_rows(published, metrics):
  assert gap.average_gap(metrics, RETRAIN, RETRAIN) == (
    pytest.approx(published, abs=0.006)
  )


def test_signed_gaps_and_tug_of_war_by_hand():
  method = {"forget": 0.9, "retain": 0.8, "test": 0.5, "mia": 3.0}
  retrain = {"forget": 0.7, "retain": 1.0, "test": 0.5, "mia": 5.0}
  keys = ("forget", "retain", "test")
  assert gap.signed_gaps(method, retrain, keys) == (
    pytest.approx({"forget": 0.2, "retain": -0.2, "test": 0.0})
  )
  assert gap.tug_of_war(method, retrain, keys) == pytest.approx(0.8 * 0.8)
  assert gap.average_gap(method, retrain, iter(keys)) == pytest.approx(0.4 / 3)


@settings(deadline=None)
@given(a=tables, b=tables)
def test_gap_laws(a, b):
  keys = tuple(a)
  assert gap.average_gap(a, a, keys) == 0
  assert gap.tug_of_war(a, a, keys) == 1
  assert gap.average_gap(a, b, keys) == gap.average_gap(b, a, keys)
  assert 0 <= gap.tug_of_war(a, b, keys) <= 1


def test_bad_input():
  with pytest.raises(ValueError, match="keys is empty"):
    gap.average_gap({}, {}, ())
  with pytest.raises(ValueError, match="retrain lacks 'a'"):
    gap.average_gap({"a": 1.0}, {"b": 1.0}, ["a"])
  with pytest.raises(ValueError, match=r"metrics\['a'\] is nan"):
    gap.signed_gaps({"a": math.nan}, {"a": 1.0}, ["a"])
  with pytest.raises(ValueError, match=r"accuracies\['a'\] is 95.0"):
    gap.tug_of_war({"a": 95.0}, {"a": 0.9}, ["a"])
