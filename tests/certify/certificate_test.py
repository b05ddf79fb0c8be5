"""Certificates: what is issued, what each field must be, strict reading."""

import json

import numpy as np
import pytest

from junlearn.certify import calibrate, certificate
from junlearn.certify.derived import derive, head_of
from tests.certify.issued import (
  HEAD,
  HEX,
  KINDS,
  PARAMS,
  REQUEST,
  a_priori,
  bound_of,
  by_limit,
  changed,
  decentralised,
  issue,
  leaves,
)

every_kind = pytest.mark.parametrize("name", KINDS)


@every_kind
def test_json_round_trip(name):
  issued = KINDS[name]()
  text = certificate.to_json(issued)
  assert certificate.from_json(text) == issued
  assert not list(certificate.disagreements(issued))
  assert json.loads(text)["schema"] == 3


def test_numbers_of_a_release():
  issued = issue()
  assert issued.measured.result == pytest.approx(3e-4)
  # On a grid of 2^20 to 2^21 steps a sigma, for 650 numbers.
  rough = calibrate.gaussian_sigma(1.0, 1e-5, 1e-3 + 1e-6)
  assert 2**20 <= rough / issued.grid < 2**21
  assert np.log2(issued.grid) == round(np.log2(issued.grid))
  rounding = issued.grid * np.sqrt(650)
  sigma = calibrate.gaussian_sigma(1.0, 1e-5, 1e-3 + 1e-6 + rounding)
  np.testing.assert_allclose(
    (issued.rounding, issued.sigma, issued.distance),
    (rounding, sigma, 1e-3 + 1e-6 + rounding),
    rtol=1e-12,
  )
  assert (issued.noise_dimensions, issued.norm) == (650, "joint")


def test_one_row_is_drawn_where_rows_share_their_noise():
  issued = issue(decentralised())
  assert (issued.noise_dimensions, issued.norm) == (130, "row")
  assert issued.rounding == pytest.approx(issued.grid * np.sqrt(130))


def test_what_cannot_be_shown_is_kept_by_its_hash():
  first = issue().hashes
  for name, changes in (
    ("config", {"config": b"{ }"}),
    ("params_before", {"before": PARAMS}),
    ("params_after", {"released": PARAMS}),
  ):
    changed = issue(**changes).hashes
    others = changed._replace(**{name: getattr(first, name)})
    assert changed != first and others == first
  salted = issue(salt=bytes(31) + b"1").hashes
  kept = {n for n in first._fields if getattr(first, n) == getattr(salted, n)}
  assert kept == {"config", "params_after"}
  assert first.forget_ids != first.retain_ids


# What nothing else in the certificate determines; the data, the ledger or the
# configuration do, or only the whole document's hash.
FREE = {
  "experiment",
  "release",
  "fallback",
  "checked",
  "stated",
  "hashes",
  "seeds",
  "versions",
}


@every_kind
def test_every_changed_number_is_found(name):
  """A tenth more or less of any number that the others determine."""
  issued = KINDS[name]()
  count = 0
  for path, value in leaves(json.loads(certificate.to_json(issued))):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # The allowance is a part in a million of the norm it is added to.
    if path[0] in FREE or not is_number or str(path[-1]).endswith("_error"):
      continue
    for factor in (0.9, 1.1):
      other = value * factor if isinstance(value, float) else 7
      assert list(certificate.disagreements(changed(issued, path, other))), path
      count += 1
  assert count >= 2 * 10


def test_disagreements_name_the_field():
  issued = issue()
  wrong = issued._replace(sigma=issued.sigma / 2)
  (problem,) = certificate.disagreements(wrong)
  assert problem.startswith("sigma is ")
  for name, value in (("noise_dimensions", 0), ("norm", "rows")):
    problems = list(certificate.disagreements(issued._replace(**{name: value})))
    assert f"{name} is {value!r}; it must be" in " ".join(problems)
  head = HEAD._replace(values=HEAD.values._replace(smoothness=0.01))
  problems = list(certificate.disagreements(issued._replace(head=head)))
  assert [p.split(" is ")[0] for p in problems] == ["head.values.smoothness"]
  longer = issued.measured._replace(result=1e-4)
  problems = list(certificate.disagreements(issued._replace(measured=longer)))
  assert [p.split(" is ")[0] for p in problems] == ["measured.result"]
  inner = issue(decentralised())
  arguments = dict(inner.measured.arguments)
  contraction = arguments["contraction"]
  arguments["contraction"] = contraction._replace(result=0.1)
  measured = inner.measured._replace(arguments=arguments)
  problems = list(certificate.disagreements(inner._replace(measured=measured)))
  assert [p.split(" is ")[0] for p in problems] == [
    "measured.arguments.contraction.result",
    "measured.result",
  ]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"measured": derive("residual", gradient_norm=3.0, l2=0.1)}, "must be at"),
    ({"epsilon": 0.0}, r"epsilon is 0\.0"),
    ({"checked": {}}, "checked is empty"),
    ({"checked": {"weights": " "}}, "checked has an empty sentence"),
    ({"bound": bound_of(stated={})}, "bound has no stated"),
    ({"bound": bound_of(stated={"features": ""})}, "stated has an empty"),
    ({"sigma": 1e-3}, r"sigma is 0\.001; computed again"),
    ({"grid": 2.0**-20}, "grid is "),
    ({"rounding": 0.0}, r"rounding is 0\.0; computed again"),
    ({"rounding": -1e-9}, "rounding is -1e-09; it must be at least 0"),
    ({"seeds": {"noise": HEX}}, r"seeds\.noise may lead"),
    ({"seeds": {"data": "17"}}, r"seeds\.data is '17'"),
    (
      {"measured": derive("residual", gradient_norm=3e-5, l2=0.2)},
      r"measured\.arguments\.l2 is 0\.2",
    ),
    (
      {
        "measured": derive(
          "local_contraction",
          step_size=1.0,
          l2=0.1,
          smoothness=HEAD.values.smoothness,
          num_local_steps=400,
        )
      },
      "which bounds no distance",
    ),
  ],
)
def test_what_is_no_release_is_not_issued(changes, message):
  with pytest.raises(ValueError, match=message):
    issue(**changes)


def test_a_distance_is_chosen_before_it_is_measured():
  measured = bound_of().measured(PARAMS, REQUEST).result
  with pytest.raises(ValueError, match="exactly what was measured; it must be"):
    issue(max_distance=measured)
  assert issue(max_distance=measured * 1.001).limit is None


def test_a_limit_is_that_of_an_a_priori_theorem():
  issued = by_limit()
  assert issued.max_distance == issued.limit.result == a_priori().result
  for limit, message in (
    (issued.measured, "limit: max_distance is the result of 'residual'"),
    (a_priori(num_removed=2), "max_distance is"),
    (a_priori()._replace(result=1e-2), "limit: max_distance.result is 0.01"),
    (a_priori(l2=0.2), "limit.arguments.l2 is 0.2; computed again it is 0.1"),
    (
      a_priori(optimum_gradient=1e-3),
      "limit.arguments.optimum_gradient is 0.001",
    ),
  ):
    wrong = issued._replace(limit=limit)
    problems = list(certificate.disagreements(wrong))
    assert any(each.startswith(message) for each in problems), problems


def test_unknown_theorems_and_heads():
  with pytest.raises(ValueError, match="theorem is 'hope'"):
    derive("hope", l2=0.1)
  with pytest.raises(ValueError, match="gradient_norm"):
    derive("residual", l2=0.1)
  with pytest.raises(ValueError, match="head is 'mlp'"):
    head_of("mlp", l2=0.1)


# Strict reading.


DIMENSIONS = ('"noise_dimensions": ', "650")


def edit(old, new, *more):
  """One place of the JSON; with more, what follows it."""
  if more:
    old, new = old + new, old + more[0]
  text = certificate.to_json(issue())
  assert text.count(old) == 1
  return text.replace(old, new)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (lambda: edit('"schema": 3,\n', ""), "schema is missing"),
    (lambda: edit('"sigma"', '"noise"'), "sigma is missing"),
    (lambda: edit('"norm"', '"extra": 1, "norm"'), "extra is unknown"),
    (lambda: edit('"kind"', '"a": 1, "kind"'), r"head\.a is unknown"),
    (lambda: edit('"norm"', '"delta": 1e-5, "norm"'), "delta is there twice"),
    (lambda: edit(*DIMENSIONS, "650.0"), r"noise_dimensions is 650\.0"),
    (lambda: edit(*DIMENSIONS, "true"), "noise_dimensions is True"),
    (lambda: edit('"schema": 3', '"schema": "3"'), "schema is '3'"),
    (lambda: edit('"epsilon": 1.0', '"epsilon": NaN'), "NaN is not a number"),
    (lambda: edit('"epsilon": 1.0', '"epsilon": 1e999'), "epsilon is inf"),
    (lambda: edit('"epsilon": 1.0', '"epsilon": 1.00'), "one form"),
    (lambda: edit('"epsilon": 1.0', '"epsilon":  1.0'), "one form"),
    (lambda: certificate.to_json(issue())[:-1], "cut short"),
    (lambda: certificate.to_json(issue()) + "\n", "one form"),
    (lambda: certificate.to_json(issue())[:-9] + "\n", "not JSON"),
    (lambda: "[" * 100_000 + "\n", "not JSON"),
    (lambda: "[]\n", "the document is"),
  ],
)
def test_strict_reading(text, message):
  with pytest.raises(ValueError, match=message):
    certificate.from_json(text())


def test_another_schema_is_not_interpreted():
  second = edit('"schema": 3', '"schema": 2')
  second = second.replace('"retrain_error"', '"comparator"')  # as it was
  with pytest.raises(ValueError, match=r"^schema is 2; this program reads 3$"):
    certificate.from_json(second)
  (problem,) = certificate.disagreements(issue()._replace(schema=2))
  assert problem == "schema is 2; this program reads 3."


def test_not_a_number_is_not_written():
  with pytest.raises(ValueError, match="JSON compliant"):
    certificate.to_json(issue()._replace(sigma=float("nan")))
