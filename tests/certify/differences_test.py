"""Certificates compared with others that are made anew from the data."""

import json

import pytest

from junlearn.certify import certificate
from junlearn.certify.derived import derive
from tests.certify.issued import (
  KINDS,
  bound_of,
  by_limit,
  changed,
  issue,
  leaves,
)

every_kind = pytest.mark.parametrize("name", KINDS)


def measured(moved=0.0):
  """With an allowance for rounding of 1e-9, and moved by this much."""
  found = {"gradient_norm": 3e-5 + moved, "gradient_error": 1e-9}
  return issue(bound_of(measured=found))


def names(problems):
  return {problem.split(" is ")[0] for problem in problems}


def test_a_certificate_made_anew_agrees():
  """Sums of other machines end in other digits, within the allowance."""
  assert not list(certificate.differences(issue(), issue()))
  assert not list(certificate.differences(measured(), measured(1.9e-9)))
  found = names(certificate.differences(measured(), measured(2.1e-9)))
  assert found == {"measured.arguments.gradient_norm"}
  versions = issue()._replace(versions={"python": "4.0"})
  assert not list(certificate.differences(versions, issue()))


@every_kind
def test_every_changed_field_is_named(name):
  """By `differences`, or, of what was measured, by `disagreements`."""
  issued = KINDS[name]()
  count = 0
  for path, value in leaves(json.loads(certificate.to_json(issued))):
    if path[0] in ("versions", "schema") or value is None:
      continue
    if isinstance(value, bool):
      other = not value
    elif isinstance(value, str):
      other = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
      other = value * 1.01 if isinstance(value, float) else value + 1
    wrong = changed(issued, path, other)
    found = names(certificate.differences(wrong, issued))
    if path == ("measured", "result"):
      found = names(certificate.disagreements(wrong))
    assert ".".join(path) in found
    count += 1
  assert count > 30


def test_fields_that_are_there_or_not():
  issued, limited = issue(), by_limit()
  assert "head.kind" in names(
    certificate.differences(issued._replace(head=None), issued)
  )
  assert "limit.theorem" in names(
    certificate.differences(limited._replace(limit=None), limited)
  )
  for name in ("checked", "stated"):
    longer = {**getattr(issued, name), "more": "Trust me."}
    wrong = issued._replace(**{name: longer})
    assert names(certificate.differences(wrong, issued)) == {f"{name}.more"}
    shorter = issued._replace(**{name: {}})
    assert names(certificate.differences(shorter, issued))


def test_tiny_goals_are_compared_relatively():
  """A bound 145 times the goal does not pass, however small both are."""

  def tiny(norm):
    found = {"gradient_norm": norm, "gradient_error": 1e-15}
    return bound_of(measured=found, retrain_error=0.0)

  stored = issue(tiny(5e-11), max_distance=1e-9)
  assert not list(certificate.differences(stored, stored))
  far = derive("residual", l2=0.1, gradient_norm=1.45e-8, gradient_error=1e-15)
  found = names(certificate.differences(stored, stored._replace(measured=far)))
  assert {"max_distance", "measured.arguments.gradient_norm"} <= found
  # And below the goal, a norm that is another one.
  other = derive("residual", l2=0.1, gradient_norm=6e-11, gradient_error=1e-15)
  found = names(
    certificate.differences(stored, stored._replace(measured=other))
  )
  assert found == {"measured.arguments.gradient_norm"}
  for name in ("sigma", "grid", "rounding", "max_distance"):
    wrong = stored._replace(**{name: getattr(stored, name) * 1.001})
    assert names(certificate.differences(wrong, stored)) == {name}
