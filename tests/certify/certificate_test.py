import json

import pytest

from junlearn.certify import calibrate, certificate
from junlearn.certify.derived import derive, head_of

HASHES = certificate.Hashes(*(f"{k:064x}" for k in range(5)))
HEAD = head_of("softmax", input_norm=1.5, l2=0.1, num_classes=10)


def issue(**changes):
  options = {
    "experiment": "test",
    "mode": "residual_stopped",
    "epsilon": 1.0,
    "delta": 1e-5,
    "max_distance": 1e-3,
    "comparator": 1e-6,
    "noise_dimensions": 650,
    "measured": derive("residual", gradient_norm=3e-5, l2=0.1),
    "head": HEAD,
    "assumptions": ["The noise key was drawn from entropy."],
    "iterations": 3,
    "hashes": HASHES,
    "seeds": {"data": HASHES.config},
  }
  return certificate.issue(**{**options, **changes})


def worst_case():
  values = HEAD.values
  public = derive(
    "a_priori",
    num_removed=1,
    num_examples=5000,
    l2=0.1,
    optimum_gradient=values.optimum_gradient,
    hessian_lipschitz=values.hessian_lipschitz,
    training_residual=1e-9,
  )
  return issue(
    mode="worst_case",
    public=public,
    max_distance=public.result,
    measured=derive("residual", gradient_norm=1e-9, l2=0.1),
  )


def decentralised():
  contraction = derive(
    "mixing_contraction",
    step_size=0.5,
    l2=0.1,
    smoothness=HEAD.values.smoothness,
    smallest_eigenvalue=-0.35,
  )
  return issue(
    measured=derive(
      "fixed_point_residual", residual_norm=1e-6, contraction=contraction
    )
  )


def reported():
  return issue(mode="reported", max_distance=None, head=None)


KINDS = {
  "residual_stopped": issue,
  "worst_case": worst_case,
  "decentralised": decentralised,
  "reported": reported,
}
every_kind = pytest.mark.parametrize("name", KINDS)


@every_kind
def test_json_round_trip(name):
  issued = KINDS[name]()
  text = certificate.to_json(issued)
  assert certificate.from_json(text) == issued
  assert not list(certificate.disagreements(issued))
  assert json.loads(text)["schema"] == 1


def test_numbers_of_a_release():
  issued = issue()
  sigma = calibrate.gaussian_sigma(1.0, 1e-5, 1e-3 + 1e-6)
  assert issued.sigma == pytest.approx(sigma, rel=1e-12)
  assert issued.measured.result == pytest.approx(3e-4)
  assert issued.certified


def test_a_reported_one_certifies_nothing():
  text = certificate.to_json(reported())
  assert json.loads(text)["certified"] is False
  claimed = text.replace('"certified": false', '"certified": true')
  problems = list(certificate.disagreements(certificate.from_json(claimed)))
  assert problems == ["certified is True; mode 'reported' says False."]


def leaves(data, path=()):
  pairs = data.items() if isinstance(data, dict) else enumerate(data)
  for key, value in pairs:
    if isinstance(value, dict | list):
      yield from leaves(value, (*path, key))
    else:
      yield (*path, key), value


# What nothing else in the certificate determines; the data, the ledger or the
# configuration do, or only the whole document's hash.
FREE = {
  "experiment",
  "noise_dimensions",
  "assumptions",
  "iterations",
  "hashes",
  "seeds",
  "versions",
}


@every_kind
def test_every_changed_number_is_found(name):
  """A tenth more or less of any number that the others determine."""
  data = json.loads(certificate.to_json(KINDS[name]()))
  changed = 0
  for path, value in leaves(data):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if path[0] in FREE or not is_number:
      continue
    for factor in (0.9, 1.1):
      place = edited = json.loads(json.dumps(data))
      for key in path[:-1]:
        place = place[key]
      place[path[-1]] = value * factor if isinstance(value, float) else 7
      text = json.dumps(edited, indent=2) + "\n"
      issued = certificate.from_json(text)
      problems = list(certificate.disagreements(issued))
      assert problems, path
      changed += 1
  assert changed >= 2 * 8


def test_disagreements_name_the_field():
  issued = issue()
  wrong = issued._replace(sigma=issued.sigma / 2)
  (problem,) = certificate.disagreements(wrong)
  assert problem.startswith("sigma is ")
  head = HEAD._replace(values=HEAD.values._replace(smoothness=0.01))
  problems = list(certificate.disagreements(issued._replace(head=head)))
  assert [p.split(" is ")[0] for p in problems] == ["head.values.smoothness"]
  longer = issued.measured._replace(result=1e-4)
  problems = list(certificate.disagreements(issued._replace(measured=longer)))
  assert [p.split(" is ")[0] for p in problems] == ["measured.result"]
  inner = decentralised()
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
    ({"max_distance": 1e-5}, "measured.result is 0.0003"),
    ({"max_distance": None}, "max_distance is None"),
    ({"mode": "worst_case"}, "public must be there"),
    ({"mode": "sloppy"}, "mode is 'sloppy'"),
    ({"epsilon": 0.0}, "epsilon is 0.0"),
    ({"noise_dimensions": 0}, "noise_dimensions is 0"),
    ({"assumptions": []}, "assumptions is empty"),
    ({"iterations": -1}, "iterations is -1"),
    ({"comparator": -1e-9}, "comparator is -1e-09"),
    ({"seeds": {"noise": HASHES.config}}, "seeds.noise may lead"),
    ({"seeds": {"data": "17"}}, "seeds.data is '17'"),
    ({"hashes": HASHES._replace(config="x")}, "hashes.config is 'x'"),
    (
      {"measured": derive("residual", gradient_norm=3e-5, l2=0.2)},
      "measured.arguments.l2 is 0.2",
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


def test_a_worst_case_is_that_of_its_theorem():
  public = worst_case().public
  measured = derive("residual", gradient_norm=0.0, l2=0.1)
  options = {"mode": "worst_case", "public": public, "measured": measured}
  with pytest.raises(ValueError, match="max_distance is"):
    issue(**options, max_distance=2 * public.result)
  with pytest.raises(ValueError, match="public must be there"):
    issue(public=public)


def test_unknown_theorems_and_heads():
  with pytest.raises(ValueError, match="theorem is 'hope'"):
    derive("hope", l2=0.1)
  with pytest.raises(ValueError, match="gradient_norm"):
    derive("residual", l2=0.1)
  with pytest.raises(ValueError, match="head is 'mlp'"):
    head_of("mlp", l2=0.1)


# Strict reading.


def edit(old, new):
  text = certificate.to_json(issue())
  assert text.count(old) == 1
  return text.replace(old, new)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (lambda: edit('"schema": 1,\n', ""), "schema is missing"),
    (lambda: edit('"iterations"', '"steps"'), "iterations is missing"),
    (lambda: edit('"mode"', '"extra": 1, "mode"'), "extra is unknown"),
    (lambda: edit('"kind"', '"a": 1, "kind"'), "head.a is unknown"),
    (lambda: edit('"mode"', '"delta": 1e-5, "mode"'), "delta is there twice"),
    (lambda: edit('"iterations": 3', '"iterations": 3.0'), "iterations is 3.0"),
    (lambda: edit('"iterations": 3', '"iterations": true'), "iterations is"),
    (lambda: edit('"schema": 1', '"schema": "1"'), "schema is '1'"),
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
  issued = certificate.from_json(edit('"schema": 1', '"schema": 2'))
  (problem,) = certificate.disagreements(issued)
  assert problem.startswith("schema is 2")


def test_not_a_number_is_not_written():
  with pytest.raises(ValueError, match="JSON compliant"):
    certificate.to_json(issue()._replace(sigma=float("nan")))
