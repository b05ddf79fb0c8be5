"""Honest releases by a third implementation, and what was done to them."""

import copy
import functools
import json
import math

import mpmath
import numpy as np
import pytest

from experiments.verify_certificate import independent_check
from junlearn.certify import calibrate, ledger, signing
from junlearn.certify.accountant import Account
from tests import softmax

L2, TOLERANCE, MAX_DISTANCE = 0.2, 1e-9, 1e-2
EPSILON, DELTA, PLANNED = 1.0, 1e-5, 4
CLASSES, FEATURES, RECORDS = 3, 2, 8
SIZE = (FEATURES + 1) * CLASSES
KINDS = {
  "stacked": ("stacked", 1, "uniform", 4),
  "stacked by sample": ("stacked", 1, "sample", 4),
  "local steps": ("stacked", 3, "uniform", 4),
  "local steps by sample": ("stacked", 3, "sample", 4),
  "long local steps": ("stacked", 3, "uniform", 5),
  "consensus": ("consensus", 1, "uniform", 4),
  "consensus by sample": ("consensus", 1, "sample", 4),
  "one model": ("stacked", 1, "uniform", 1),
}


def as_params(x):
  """`[clients, numbers]` as kernel and bias, the bias being the last row."""
  x = x.reshape(len(x), FEATURES + 1, CLASSES)
  return {"kernel": x[:, :-1], "bias": x[:, -1]}


class Training:
  """The records, and training by `tests.softmax`."""

  def __init__(self, form, steps, weighting, clients):
    rng = np.random.default_rng(clients)
    self.form, self.steps, self.weighting = form, steps, weighting
    self.x = rng.normal(size=(clients, RECORDS, FEATURES))
    self.y = rng.integers(CLASSES, size=(clients, RECORDS))
    self.weight = np.ones((clients, RECORDS))
    self.weight[0, 3:] = 0  # forgotten
    self.known = 1.0  # public smoothness, in units of what it is
    if clients == 1:
      self.mixing, self.gamma, self.active = np.ones((1, 1)), 1.0, [0]
    else:  # a path of three clients, and those that have left
      self.mixing = np.eye(clients)
      self.mixing[:3, :3] = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3
      self.weight[3:] = 0
      self.gamma, self.active = 0.25, [0, 1, 2]
    counts = self.weight.sum(1)
    self.scale = np.ones(clients)
    if weighting == "sample":
      self.scale = (counts > 0).sum() * counts / counts.sum()
    if clients == 5:  # the largest curvature decides how rounds contract
      self.gamma, self.known = 1.95 / self.smoothness(), 1.005

  def client(self, function, i, theta):
    ones = np.ones((RECORDS, 1))
    inputs = [np.concatenate([self.x[i], ones], 1)]
    if function is softmax.gradient:
      inputs.append(self.y[i])
    return function(theta, *inputs, self.weight[i], L2, self.scale[i])

  def gradients(self, x):
    return np.stack(
      [self.client(softmax.gradient, i, row) for i, row in enumerate(x)]
    )

  def residual(self, x):
    if self.steps == 1:
      return x - self.mixing @ x + self.gamma * self.gradients(x)
    moved = x
    for _ in range(self.steps):
      moved = moved - self.gamma * self.gradients(moved)
    return x - self.mixing @ moved

  def mean(self, function, theta):
    return np.mean([self.client(function, i, theta) for i in self.active], 0)

  @functools.cached_property
  def optimum(self):
    """The fixed point of the rounds, or the minimiser of the mean, by Newton.

    The derivative of the rounds is by differences.
    """
    if self.form == "consensus":
      best = softmax.minimum(
        functools.partial(self.mean, softmax.gradient),
        functools.partial(self.mean, softmax.hessian),
        np.zeros(SIZE),
      )
      return np.tile(best, (len(self.mixing), 1))
    x = np.zeros(len(self.mixing) * SIZE)

    def slope(x):
      return self.residual(x.reshape(len(self.mixing), -1)).ravel()

    for _ in range(20):
      columns = [
        (slope(x + 1e-6 * e) - slope(x - 1e-6 * e)) / 2e-6
        for e in np.eye(len(x))
      ]
      x = x - np.linalg.solve(np.stack(columns, 1), slope(x))
    assert np.linalg.norm(slope(x)) < 1e-13
    return x.reshape(len(self.mixing), -1)

  def smoothness(self):
    squares = (np.sum(self.x**2, -1) + 1) * self.weight
    return np.max(self.scale[:, None] * squares) / 2 + L2

  def kappa(self):
    beta = self.known * self.smoothness()
    one = max(abs(1 - self.gamma * L2), abs(1 - self.gamma * beta))
    return one**self.steps

  def measured(self, x):
    """As a certificate has it."""
    if self.form == "consensus":
      norm = np.linalg.norm(self.mean(softmax.gradient, x[0]))
    else:
      norm = np.linalg.norm(self.residual(x))
      norm = norm / self.gamma if self.steps == 1 else norm
    norm, error = float(norm), 1e-11
    if self.form == "stacked" and self.steps > 1:
      contraction = {
        "theorem": "local_contraction",
        "arguments": {},
        "result": float(self.kappa()),
      }
      return {
        "theorem": "fixed_point_residual",
        "arguments": {
          "contraction": contraction,
          "residual_norm": norm,
          "residual_error": error,
        },
        "result": (norm + error) / (1 - contraction["result"]),
      }
    return {
      "theorem": "residual",
      "arguments": {"l2": L2, "gradient_norm": norm, "gradient_error": error},
      "result": (norm + error) / L2,
    }


@functools.cache
def _made(kind):
  training = Training(*KINDS[kind])
  rng = np.random.default_rng(5)
  ids = 100 + np.arange(training.y.size).reshape(training.y.shape)
  optimum, clients = training.optimum, len(training.mixing)
  consensus = training.form == "consensus"
  shape = (1, SIZE) if consensus else (clients, SIZE)
  corrected = optimum + 1e-5 * rng.normal(size=shape)
  retrain_error = TOLERANCE / (training.gamma * L2)
  if training.steps > 1:
    retrain_error = TOLERANCE / (1 - training.kappa())
  numbers = math.prod(shape)
  mu = Account(EPSILON, DELTA).left / math.sqrt(PLANNED)
  unrounded = MAX_DISTANCE + retrain_error
  grid = 2.0 ** math.floor(math.log2(unrounded / mu) - 20)
  rounding = grid * math.sqrt(numbers)
  sigma = (unrounded + rounding) / mu * (1 + 1e-7)
  z = np.rint(rng.normal(size=shape) * sigma / grid)
  released = (np.rint(corrected / grid) + z) * grid
  case = {
    "inputs": training.x,
    "labels": training.y,
    "weight": training.weight,
    "ids": {
      "forget": ids[0, 3:].tolist(),
      "retain": ids[training.weight > 0].tolist(),
    },
    "mixing": training.mixing,
    "step_size": training.gamma,
    "l2": L2,
    "local_steps": training.steps,
    "weighting": training.weighting,
    "form": training.form,
    "corrected": as_params(corrected),
    "released": as_params(released),
    "original": as_params(corrected + 3e-2 * rng.normal(size=(clients, SIZE))),
    "retrained": as_params(optimum + 1e-11 * rng.normal(size=optimum.shape)),
    "budget": {"epsilon": EPSILON, "delta": DELTA, "planned": PLANNED},
    "max_distance": MAX_DISTANCE,
    "tolerance": TOLERANCE,
  }
  distance = MAX_DISTANCE + retrain_error + rounding
  certificate = {
    "schema": 3,
    "experiment": "decentralized",
    "release": "request 0",
    "epsilon": calibrate.gaussian_epsilon(DELTA, distance, sigma),
    "delta": DELTA,
    "max_distance": MAX_DISTANCE,
    "retrain_error": float(retrain_error),
    "rounding": rounding,
    "sigma": float(sigma),
    "grid": grid,
    "norm": "row" if consensus else "joint",
    "noise_dimensions": numbers,
    "measured": training.measured(corrected),
    "limit": None,
    "head": None,
    "fallback": False,
    "checked": {},
    "stated": {},
    "hashes": {"params_before": "1" * 64, "params_after": "2" * 64},
  }
  entry = {
    "request": "request 0",
    "params_before": "1" * 64,
    "params_after": "2" * 64,
    "epsilon": EPSILON,
    "delta": DELTA,
    "distance": float(distance),
    "sigma": float(sigma),
  }
  return case, certificate, entry


def made(kind):
  return copy.deepcopy(_made(kind))


def problems(kind, change=lambda case, certificate, entry: None):
  parts = made(kind)
  change(*parts)
  return list(independent_check.problems(*parts))


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_release_has_no_problem(kind):
  case, certificate, entry = made(kind)
  assert list(independent_check.problems(case, certificate, entry)) == []
  written = json.loads(json.dumps(certificate))
  assert list(independent_check.problems(case, written, entry)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_one(kind):
  """Nowhere is a model further from the optimum than what is measured."""
  rng = np.random.default_rng(1)
  training = Training(*KINDS[kind])
  shape = (1, SIZE) if training.form == "consensus" else training.optimum.shape
  for size in (1e-6, 1e-2, 1.0):
    x = training.optimum + size * rng.normal(size=shape)
    case = {**made(kind)[0], "corrected": as_params(x)}
    away = x - training.optimum
    distance = np.linalg.norm(away[0] if shape[0] == 1 else away)
    for limit, found in ((distance * 0.999, True), (1e9, False)):
      case["max_distance"] = float(limit)
      text = "corrected is not known to be within max_distance"
      said = independent_check.problems(case, made(kind)[1], made(kind)[2])
      assert any(text in problem for problem in said) == found


def put(place, path, value):
  """A change of one field; a function changes what is there."""

  def change(*parts):
    mapping = parts[("case", "certificate", "entry").index(place)]
    *folders, name = path.split(".")
    for folder in folders:
      mapping = mapping[folder]
    mapping[name] = value(mapping[name]) if callable(value) else value

  return change


def times(factor):
  return lambda value: value * factor


def at(index, value):
  def change(array):
    array = array.copy()
    array[index] = value
    return array

  return change


def forged_residual(case, certificate, entry):
  """A distance that was not measured, consistent in itself."""
  measured = certificate["measured"]
  measured["arguments"]["gradient_norm"] /= 2
  total = sum(measured["arguments"].values()) - L2
  measured["result"] = total / L2


def less_noise(case, certificate, entry):
  """Sigma of a smaller budget's part, everywhere."""
  for mapping in (certificate, entry):
    mapping["sigma"] *= 0.9


def noise_of(forge):
  def change(case, certificate, entry):
    grid, sigma = certificate["grid"], certificate["sigma"]
    for name, leaf in case["corrected"].items():
      clean = np.rint(leaf / grid) * grid
      z = (case["released"][name] - clean) / sigma
      moved = forge(name, leaf, z, case) * sigma
      case["released"][name] = clean + np.rint(moved / grid) * grid

  return change


TAMPERED = {
  # Records.
  "a forgotten record counts": (
    put("case", "weight", at((0, 5), 1.0)),
    "weight is not 0 for another",
  ),
  "a retained record does not count": (
    put("case", "weight", at((1, 5), 0.0)),
    "weight is not 0 for another",
  ),
  "a weight is a fraction": (
    put("case", "weight", at((1, 5), 0.5)),
    "weight has values beside",
  ),
  "a record twice": (
    put("case", "ids.retain", lambda ids: [*ids[:-1], ids[0]]),
    "has records twice",
  ),
  "forgotten and retained": (
    put("case", "ids.forget", [103, 110]),
    "share records",
  ),
  "nothing forgotten": (put("case", "ids.forget", []), "is empty"),
  "a label of no class": (put("case", "labels", at((1, 1), 3)), "labels has"),
  "an infinite input": (
    put("case", "inputs", at((1, 1, 0), np.inf)),
    "inputs has values",
  ),
  "another input": (put("case", "inputs", times(1.01)), "_norm is"),
  "another label": (
    put("case", "labels", lambda y: (y + 1) % CLASSES),
    "not known to be within",
  ),
  "an asymmetric mixing": (
    put("case", "mixing", at((0, 1), 0.4)),
    "mixing is not symmetric",
  ),
  "a negative mixing": (
    put("case", "mixing", lambda w: 2 * np.eye(4) - w),
    "mixing is not symmetric",
  ),
  "a mixing that loses": (
    put("case", "mixing", times(0.999)),
    "mixing is not symmetric",
  ),
  # Distance.
  "a model far from retraining": (
    put("case", "corrected.kernel", times(1.1)),
    "not known to be within",
  ),
  "a distance not measured": (forged_residual, "gradient_norm is"),
  "another result": (
    put("certificate", "measured.result", times(0.9)),
    "measured.result is",
  ),
  "a result beyond": (
    put("certificate", "measured.result", 2 * MAX_DISTANCE),
    "above max_distance",
  ),
  "no allowance for rounding": (
    put("certificate", "measured.arguments.gradient_error", 0.0),
    "gradient_error is",
  ),
  "too much for rounding": (
    put("certificate", "measured.arguments.gradient_error", 1e-4),
    "measured.result is",
  ),
  "another penalty": (
    put("certificate", "measured.arguments.l2", 0.4),
    "measured.arguments.l2 is",
  ),
  "another theorem": (
    put("certificate", "measured.theorem", "sekhari"),
    "measured.theorem is",
  ),
  "a distance that retraining belies": (
    put("certificate", "measured.result", 1e-7),
    "from retrained, beyond",
  ),
  # Terms.
  "another max_distance": (
    put("certificate", "max_distance", times(0.5)),
    "max_distance is",
  ),
  "no retrain_error": (
    put("certificate", "retrain_error", 0.0),
    "retrain_error is",
  ),
  "no rounding": (put("certificate", "rounding", 0.0), "rounding is"),
  "another norm": (put("certificate", "norm", "row"), "norm is 'row'"),
  "fewer numbers": (
    put("certificate", "noise_dimensions", times(2)),
    "noise_dimensions is",
  ),
  "another schema": (put("certificate", "schema", 1), "schema is 1"),
  "schema True": (put("certificate", "schema", True), "schema is True"),
  "fallback a word": (put("certificate", "fallback", "no"), "fallback is"),
  "a grid of no power": (
    put("certificate", "grid", times(0.99999)),
    "near sigma",
  ),
  "a coarse grid": (put("certificate", "grid", times(4)), "near sigma"),
  # Privacy.
  "less noise": (less_noise, "the distance and the budget need"),
  "more noise": (
    put("certificate", "sigma", times(1.01)),
    "the distance and the budget need",
  ),
  "more planned": (put("case", "budget.planned", 5), "the budget need"),
  "no plan": (put("case", "budget.planned", 0.5), "budget.planned is"),
  "a smaller epsilon": (
    put("certificate", "epsilon", times(0.99)),
    "epsilon is",
  ),
  "a larger epsilon": (put("certificate", "epsilon", times(1.01)), "epsilon"),
  "another delta": (put("certificate", "delta", 1e-6), "delta is"),
  # Noise.
  "no noise": (noise_of(lambda name, w, z, case: 0 * z), "has the scale"),
  "double noise": (noise_of(lambda name, w, z, case: 2 * z), "has the scale"),
  "off the grid": (
    put("case", "released.bias", lambda w: w + 1e-12),
    "no multiples of",
  ),
  "NaN": (put("case", "released.bias", at((0, 0), np.nan)), "no multiples"),
  "around the original": (
    noise_of(lambda name, w, z, case: z + 200 * (case["original"][name] - w)),
    "towards original",
  ),
  # The ledger's line.
  "another distance entered": (
    put("entry", "distance", times(0.5)),
    "distance",
  ),
  "another sigma entered": (put("entry", "sigma", times(2)), "ledger's sigma"),
  "another budget entered": (put("entry", "epsilon", 2.0), "ledger's epsilon"),
  "another delta entered": (put("entry", "delta", 1e-4), "ledger's delta"),
  "another request": (put("entry", "request", "request 1"), "ledger's request"),
  "other params entered": (
    put("entry", "params_after", "3" * 64),
    "ledger's params_after",
  ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_found(name):
  change, expected = TAMPERED[name]
  found = problems("stacked", change)
  assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("params", ["released", "corrected"])
def test_rows_of_a_consensus_that_differ(params):
  change = put("case", f"{params}.bias", at((1, 0), 0.0))
  assert any("rows differ" in p for p in problems("consensus", change))


def test_a_consensus_on_the_way_to_one_clients_original():
  parts = made("consensus")
  case = parts[0]
  for name, leaf in case["original"].items():
    leaf[[0, 2, 3]] = case["corrected"][name][[0, 2, 3]]
  noise_of(lambda name, w, z, case: z + 300 * (case["original"][name] - w)[1])(
    *parts
  )
  found = list(independent_check.problems(*parts))
  assert any("towards original" in problem for problem in found)


def test_a_correction_that_is_exact():
  """The norm is then rounding, in which two computations differ."""
  case, certificate, entry = made("stacked")
  training = Training(*KINDS["stacked"])
  case["corrected"] = as_params(training.optimum)
  certificate["measured"] = training.measured(training.optimum)
  arguments = certificate["measured"]["arguments"]
  arguments["gradient_norm"] += 2e-14
  total = arguments["gradient_norm"] + arguments["gradient_error"]
  certificate["measured"]["result"] = total / L2
  assert list(independent_check.problems(case, certificate, entry)) == []


@pytest.mark.parametrize("kind", ["local steps", "consensus", "one model"])
def test_forged_distances_of_the_other_forms(kind):
  name = "residual" if kind == "local steps" else "gradient"
  for part in ("norm", "error"):
    field = f"measured.arguments.{name}_{part}"
    found = problems(kind, put("certificate", field, times(1e-9)))
    assert any(f"{name}_{part} is" in problem for problem in found), found
  far = put("case", "corrected.kernel", lambda w: w + 0.1)
  assert any("not known to be" in problem for problem in problems(kind, far))


@pytest.mark.parametrize("kind", ["local steps", "long local steps"])
def test_a_contraction_that_is_too_small(kind):
  field = "measured.arguments.contraction.result"
  for factor in (0.95, 2.0):
    found = problems(kind, put("certificate", field, times(factor)))
    assert any("measured contraction is" in problem for problem in found)


def leaves(mapping, path=""):
  for name, value in mapping.items():
    yield f"{path}{name}"
    if isinstance(value, dict):
      yield from leaves(value, f"{path}{name}.")


READ = [
  (place, path)
  for place, mapping in zip(
    ("case", "certificate", "entry"), _made("local steps"), strict=True
  )
  for path in leaves(mapping)
  if path
  not in (
    *("experiment", "limit", "head", "checked", "stated"),
    "measured.arguments.contraction.theorem",
    "measured.arguments.contraction.arguments",
  )
]


@pytest.mark.parametrize(("place", "path"), READ)
@pytest.mark.parametrize("value", ["a word", None, [], {}, True, math.nan])
def test_what_cannot_be_read_is_said(place, path, value):
  optional = value is None and path in ("original", "retrained")
  optional |= value is True and path == "fallback"
  found = problems("local steps", put(place, path, value))
  assert bool(found) != optional


@pytest.mark.parametrize(("place", "path"), READ)
def test_what_is_missing_is_said(place, path):
  parts = made("local steps")
  mapping = parts[("case", "certificate", "entry").index(place)]
  *folders, name = path.split(".")
  for folder in folders:
    mapping = mapping[folder]
  del mapping[name]
  found = list(independent_check.problems(*parts))
  assert bool(found) != (path in ("original", "retrained"))


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 8.0, 20.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
def test_mu_and_epsilon_are_the_formula(epsilon, delta):
  mu = independent_check.largest_mu(epsilon, delta)
  with mpmath.workdps(50):
    e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
    exact = mpmath.ncdf(m / 2 - e / m)
    exact -= mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
  assert abs(float(exact) / delta - 1) < 1e-9
  again = independent_check.smallest_epsilon(delta, mu)
  assert abs(again / epsilon - 1) < 1e-8
  np.testing.assert_allclose(Account(epsilon, delta).left, mu, rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 5.0, 34.9, 35.1, 200.0, -3.0])
def test_tails(value):
  with mpmath.workdps(50):
    exact = mpmath.log(mpmath.ncdf(-mpmath.mpf(value)))
  assert abs(independent_check._log_tail(value) / float(exact) - 1) < 1e-10


@pytest.fixture
def signed(tmp_path):
  """A ledger of three lines, by the library, and its key."""
  key = signing.load_key(signing.new_key())
  path = tmp_path / "ledger.jsonl"
  for index in range(3):
    ledger.append(
      path,
      key=key,
      request=f"request {index}",
      records=["a", "b"],
      params_before="1" * 64,
      params_after="2" * 64,
      epsilon=EPSILON,
      delta=DELTA,
      distance=1e-2,
      sigma=1e-2 / (0.05 * (index + 1)),
      certificate="3" * 64,
    )
  return path.read_text(), key


def chained(lines, key):
  """Lines with hashes and signatures of their own."""
  previous, text = "0" * 64, ""
  for line in lines:
    line = {**line, "previous": previous, "hash": "", "signature": ""}
    line["signer"] = signing.public_key(key)
    previous = independent_check.hashlib.sha256(
      json.dumps(line).encode()
    ).hexdigest()
    line["hash"] = previous
    line["signature"] = signing.sign(key, previous.encode())
    text += json.dumps(line) + "\n"
  return text


def test_an_honest_ledger(signed):
  text, key = signed
  public = signing.public_key(key)
  assert list(independent_check.ledger_problems(text)) == []
  assert list(independent_check.ledger_problems(text, public)) == []
  lines = [json.loads(line) for line in text.splitlines()]
  assert chained(lines, key) == text


@pytest.mark.parametrize("position", range(7, 2000, 61))
def test_every_edited_byte_of_a_ledger(signed, position):
  content = bytearray(signed[0].encode())
  content[position] ^= 1
  text = content.decode()
  assert list(independent_check.ledger_problems(text))


@pytest.mark.parametrize(
  ("field", "value", "expected"),
  [
    ("index", 5, "line 2 is not in its place"),
    ("request", "request 0", "line 2 answers a request again"),
    ("distance", 0.0, "line 2 is not charged"),
    ("sigma", 1e-3, "line 2 exceeds the budget"),
    ("sigma", -1.0, "line 2 is not charged"),
    ("epsilon", 2.0, "line 2 has another epsilon"),
    ("delta", 2e-5, "line 2 has another delta"),
    ("spent", 0.1, "line 2 spent other"),
    ("left", 0.1, "line 2 left is other"),
    ("distance", "much", "field distance cannot be read"),
  ],
)
def test_a_ledger_that_its_signer_forged(signed, field, value, expected):
  text, key = signed
  lines = [json.loads(line) for line in text.splitlines()]
  lines[1][field] = value
  found = list(independent_check.ledger_problems(chained(lines, key)))
  assert any(expected in problem for problem in found), found


def test_a_ledger_signed_anew_moved_or_cut_short(signed):
  text, key = signed
  lines = text.splitlines(keepends=True)
  public = signing.public_key(key)
  other = signing.load_key(signing.new_key())
  anew = chained([json.loads(line) for line in lines], other)

  def found(text, public_key=None):
    return " ".join(independent_check.ledger_problems(text, public_key))

  assert found(anew) == ""
  assert "line 1 names another signer" in found(anew, public)
  shout = json.loads(lines[0])["signature"]
  shouted = text.replace(shout, shout.upper())
  assert found(shouted) == "line 1 has no valid signature."
  assert "does not follow" in found(lines[0] + lines[2])
  assert "does not follow" in found(lines[1] + lines[0])
  assert "the last line is cut short" in found(text[:-1])
  assert "the last line is cut short" in found("")
  assert "is not written as" in found(text.replace('": ', '":'))
  assert "cannot be read" in found("[]\n")
  assert "cannot be read" in found("no JSON\n")
