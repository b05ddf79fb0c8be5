"""A second opinion on a release, from the mathematics and not from the code.

Recomputes the figures of one certificate in plain NumPy, importing nothing of
the library: an error in the library and here would have to be the same error.
The model is softmax regression, `x` with a 1 for the bias, X = [w_1 ... w_N]:

    F_i(w) = s_i mean_i CE(w) + l2/2 |w|^2,
    T(X)   = W X - gamma grad F(X),   or W after tau local steps of gamma.

`s_i` is 1, or N_active n_i / n by sample. What the figures rest on:

  * `(X - T(X)) / gamma` is the gradient of
    `sum_i F_i(w_i) + <X, (I - W) X> / (2 gamma)`. W is symmetric, its rows are
    probabilities, so I - W >= 0, and the function is l2-strongly convex: its
    minimiser, the fixed point, is within `|X - T(X)| / (gamma l2)`.
  * A step of a function with Hessians in [l2, beta] contracts by
    `q = max(|1 - gamma l2|, |1 - gamma beta|)`, and W by 1: with tau steps,
    `kappa = q^tau` and the fixed point is within `|X - T(X)| / (1 - kappa)`.
  * The Hessian of CE in direction v is the variance of scores whose range is
    at most `sqrt(2) r |v|`, r^2 = max |x|^2 + 1; a variance is at most a
    quarter of the range squared: `beta = max_i s_i r_i^2 / 2 + l2`.
  * The consensus minimises `mean_i F_i`, l2-strongly convex over the clients
    that have not left: it is within `|mean_i grad F_i(w)| / l2`.
  * Two normal laws whose means are `mu` sigma apart differ by
    `delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`, and k
    releases of mu each by as much as one of `sqrt(k) mu`.
"""

import hashlib
import json
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_DOMAIN = b"junlearn ledger v1\0"
_RELATIVE = 1e-6
# What another order of summation may change, in units of what is summed.
_SUMMATION = 1e-13
_LEAST_ERROR = 1e-16
# A normal number is beyond with probability 3e-12.
_SCORE = 7.0


class _UnreadableError(ValueError):
  """Names a field that is missing or of another type."""


class _Network(NamedTuple):
  """The retained records `[N, n, ...]` and how training reads them."""

  inputs: np.ndarray
  targets: np.ndarray
  weight: np.ndarray
  scale: np.ndarray
  mixing: np.ndarray
  gamma: float
  l2: float
  steps: int
  consensus: bool

  def gradient(self, x):
    """Of every `F_i`, `[N, features + 1, classes]`."""
    scores = self.inputs @ x
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    errors = scores / scores.sum(-1, keepdims=True) - self.targets
    errors *= self.weight[..., None]
    counts = np.maximum(self.weight.sum(1), 1)
    mean = np.swapaxes(self.inputs, 1, 2) @ errors / counts[:, None, None]
    return self.scale[:, None, None] * mean + self.l2 * x

  def residual(self, x):
    """`X - T(X)`."""
    moved = x
    if self.steps == 1:
      moved = self._mix(x) - self.gamma * self.gradient(x)
    else:
      for _ in range(self.steps):
        moved = moved - self.gamma * self.gradient(moved)
      moved = self._mix(moved)
    return x - moved

  def mean_gradient(self, x):
    """Of `mean_i F_i` at the first row, over who has not left."""
    active = (np.diag(self.mixing) < 1) | (len(self.mixing) == 1)
    return self.gradient(np.broadcast_to(x[:1], x.shape))[active].mean(0)

  def contraction(self):
    """`kappa`."""
    squares = np.sum(self.inputs**2, -1) * self.weight
    beta = float(np.max(self.scale * squares.max(1))) / 2 + self.l2
    one = max(abs(1 - self.gamma * self.l2), abs(1 - self.gamma * beta))
    return one**self.steps

  def magnitude(self, x):
    """Of what cancels in a gradient that is near 0."""
    largest = math.sqrt(2 * float(np.max(np.sum(self.inputs**2, -1))))
    of_loss = math.sqrt(len(x)) * largest * max(1.0, float(self.scale.max()))
    return (self.l2 + 1 / self.gamma) * np.linalg.norm(x) + of_loss

  def _mix(self, x):
    return np.tensordot(self.mixing, x, 1)


def problems(
  case: Mapping[str, Any], certificate: Mapping, entry: Mapping
) -> Iterator[str]:
  """Everything in which a release is not what its certificate says.

  Args:
    case: the release as plain arrays and numbers, with the fields of
      `experiments.release.plain.PlainRelease`; `original` and `retrained` may
      be None.
    certificate: the content of `certificate.json`.
    entry: the ledger's line.

  Yields:
    A sentence for each; what cannot be read is named in one, too.
  """
  for check in (_records, _bound, _retraining, _terms, _privacy, _noise, _line):
    yield from _tried(check, case, certificate, entry)


def ledger_problems(text: str, public_key: str | None = None) -> Iterator[str]:
  """Everything that is wrong with a ledger.

  Args:
    text: of the file.
    public_key: 64 hexadecimal digits of who must have signed every line; None
      for that of the first line, which proves nothing about who it was.

  Yields:
    A sentence for each.
  """
  yield from _tried(_ledger, text, public_key)


def largest_mu(epsilon: float, delta: float) -> float:
  """The `mu` at which two normal laws have this epsilon and delta."""
  return _bisect(lambda mu: _log_delta(epsilon, mu) > math.log(delta), 1e-9)


def smallest_epsilon(delta: float, mu: float) -> float:
  """The epsilon that two normal laws `mu` apart have at this delta."""
  return _bisect(lambda eps: _log_delta(eps, mu) <= math.log(delta), 1e-12)


def _tried(check: Callable[..., Iterable[str]], *arguments) -> list[str]:
  """The sentences of a check, the last of which may be why it ended early."""
  found = []
  try:
    with np.errstate(all="ignore"):
      for problem in check(*arguments):
        found.append(problem)
  except _UnreadableError as error:
    found.append(f"field {error} cannot be read.")
  except (LookupError, ValueError, TypeError, ArithmeticError) as error:
    name = check.__name__.strip("_")
    found.append(f"a field of what {name} needs cannot be read ({error!r}).")
  return found


def _records(case, certificate, entry) -> Iterator[str]:
  """Nobody forgotten is among the retained, who count once each."""
  del certificate, entry
  weight, labels = _array(case, "weight"), _array(case, "labels")
  inputs, mixing = _array(case, "inputs"), _array(case, "mixing")
  forgotten, retained = _ids(case, "ids.forget"), _ids(case, "ids.retain")
  classes = _array(_field(case, "corrected"), "bias").shape[-1]
  if not np.isin(weight, (0, 1)).all():
    yield "weight has values beside 0 and 1."
  if not np.isin(labels[weight != 0], np.arange(classes)).all():
    yield f"labels has values that are not one of {classes} classes."
  if not np.isfinite(inputs).all():
    yield "inputs has values that are not finite."
  if not forgotten:
    yield "ids.forget is empty."
  if set(forgotten) & set(retained):
    yield "ids.forget and ids.retain share records."
  if len(set(retained)) != len(retained):
    yield "ids.retain has records twice."
  if np.count_nonzero(weight) != len(retained):
    yield f"weight is not 0 for another number than {len(retained)} records."
  if not (
    mixing.shape == (len(inputs), len(inputs))
    and (mixing >= 0).all()
    and np.abs(mixing - mixing.T).max() < 1e-9
    and np.abs(mixing.sum(1) - 1).max() < 1e-9
  ):
    yield "mixing is not symmetric and doubly stochastic."


def _bound(case, certificate, entry) -> Iterator[str]:
  """The distance that was measured, measured again."""
  del entry
  network, limit = _network(case), _number(case, "max_distance")
  stated = _field(certificate, "measured")
  norm, divisor, scale = _measure(network, _params(case, "corrected"))
  if not norm <= limit * divisor:
    yield f"corrected is not known to be within max_distance, {limit!r}."
  contracts = network.steps > 1 and not network.consensus
  name, theorem = (
    ("residual", "fixed_point_residual")
    if contracts
    else ("gradient", "residual")
  )
  yield from _other("measured.theorem", _field(stated, "theorem"), theorem)
  if contracts:
    kappa = _number(stated, "arguments.contraction")
    if not 1 - divisor <= kappa * (1 + 1e-12) < 1:
      yield f"measured contraction is {kappa!r}; it is {1 - divisor!r}."
    divisor = 1 - kappa
  else:
    l2 = _number(stated, "arguments.l2")
    yield from _apart("measured.arguments.l2", l2, network.l2)
  stated_norm = _number(stated, f"arguments.{name}_norm")
  allowed = _SUMMATION * scale / max(norm, 1e-300)
  yield from _apart(
    f"measured.arguments.{name}_norm", stated_norm, norm, _RELATIVE + allowed
  )
  error = _number(stated, f"arguments.{name}_error")
  if not error >= _LEAST_ERROR * scale:
    yield (
      f"measured {name}_error is {error!r}, below what rounding does, "
      f"{_LEAST_ERROR * scale!r}."
    )
  result = _number(stated, "result")
  yield from _apart("measured.result", result, (stated_norm + error) / divisor)
  if not 0 <= result <= limit:
    yield f"measured.result is {result!r}, above max_distance, {limit!r}."


def _retraining(case, certificate, entry) -> Iterator[str]:
  """A model retrained on these records is as near as the bounds say."""
  del entry
  network = _network(case)
  if case.get("retrained") is None or network.consensus:
    return
  x, y = _params(case, "corrected"), _params(case, "retrained")
  if _norm(network.residual(y)) > _number(case, "tolerance"):
    return  # it was retrained for later requests, too
  reach = _number(certificate, "measured.result")
  reach += _number(certificate, "retrain_error")
  rounding = _SUMMATION * network.magnitude(x)
  if not _norm(x - y) <= reach * (1 + _RELATIVE) + rounding:
    yield f"corrected is {_norm(x - y)!r} from retrained, beyond {reach!r}."


def _terms(case, certificate, entry) -> Iterator[str]:
  """What the distance is made of."""
  del entry
  network, x = _network(case), _params(case, "released")
  limit = _number(case, "max_distance")
  norm, count = ("row", x[0].size) if network.consensus else ("joint", x.size)
  grid, sigma = _number(certificate, "grid"), _number(certificate, "sigma")
  divisor = network.gamma * network.l2
  if network.steps > 1:
    divisor = 1 - network.contraction()
    stated = _field(certificate, "measured.arguments")
    if "contraction" in stated:  # may be that of public constants, if larger
      divisor = min(divisor, 1 - _number(stated, "contraction"))
  retrain_error = _number(case, "tolerance") / divisor
  for name, value in (
    ("max_distance", limit),
    ("retrain_error", retrain_error),
    ("rounding", grid * math.sqrt(count)),
  ):
    yield from _apart(name, _number(certificate, name), value)
  for name, value in (
    ("schema", 3),
    ("norm", norm),
    ("noise_dimensions", count),
  ):
    yield from _other(name, _field(certificate, name), value)
  if not isinstance(_field(certificate, "fallback"), bool):
    yield "fallback is neither True nor False."
  steps = sigma / grid
  if math.frexp(grid)[0] != 0.5 or not 2**20 * (1 - 1e-6) <= steps < 2**21.1:
    yield f"grid is {grid!r}; it is no power of two near sigma / 2^20."


def _privacy(case, certificate, entry) -> Iterator[str]:
  """Sigma hides the distance, for this release's part of the budget."""
  del entry
  budget, planned = _field(case, "budget"), _number(case, "budget.planned")
  delta, sigma = _number(budget, "delta"), _number(certificate, "sigma")
  if not planned >= 1:
    yield f"budget.planned is {planned!r}."
  mu = largest_mu(_number(budget, "epsilon"), delta) / math.sqrt(planned)
  distance = _distance(certificate)
  least = distance / mu
  if not least * (1 - _RELATIVE) <= sigma <= least * (1 + 1e-5):
    yield f"sigma is {sigma!r}; the distance and the budget need {least!r}."
  yield from _apart("delta", _number(certificate, "delta"), delta)
  epsilon = smallest_epsilon(delta, distance / sigma)
  stated = _number(certificate, "epsilon")
  if not epsilon * (1 - _RELATIVE) <= stated <= epsilon * (1 + 1e-4):
    yield f"epsilon is {stated!r}; sigma gives {epsilon!r}."


def _noise(case, certificate, entry) -> Iterator[str]:
  """What was added is noise of this size, on the grid."""
  del entry
  grid, sigma = _number(certificate, "grid"), _number(certificate, "sigma")
  x, w = _params(case, "released"), _params(case, "corrected")
  if not (np.remainder(x, grid) == 0).all():
    yield f"released has numbers that are no multiples of {grid!r}."
  consensus = _field(case, "form") == "consensus"
  z = (x - np.round(w / grid) * grid) / sigma
  if consensus:
    if not ((x == x[:1]).all() and (w == w[:1]).all()):
      yield "rows differ; those of a consensus are equal."
    z = z[:1]
  n = z.size
  # E. Wilson, M. Hilferty: the cube root of chi2 / n is nearly normal.
  unit = 2 / (9 * n)
  score = (np.cbrt(np.sum(z**2) / n) - 1 + unit) / math.sqrt(unit)
  if not abs(score) <= _SCORE:
    scale = math.sqrt(np.sum(z**2) / n) * sigma
    yield f"sigma is {sigma!r}; the noise released has the scale {scale!r}."
  for name in ("original", "retrained"):
    if case.get(name) is not None:
      back = _params(case, name) - w
      back = back.sum(0, keepdims=True) if consensus else back
      along = abs(np.sum(z * back)) / max(_norm(back), 1e-300)
      if not along <= _SCORE:
        yield f"released goes {along:.4g} sigma towards {name}."


def _line(case, certificate, entry) -> Iterator[str]:
  """The ledger has this release."""
  for name, value in (
    ("epsilon", _number(case, "budget.epsilon")),
    ("delta", _number(case, "budget.delta")),
    ("distance", _distance(certificate)),
    ("sigma", _number(certificate, "sigma")),
  ):
    stated = _number(entry, name)
    yield from _apart(f"the ledger's {name}", stated, value, 1e-12)
  for name, path in (
    ("request", "release"),
    ("params_before", "hashes.params_before"),
    ("params_after", "hashes.params_after"),
  ):
    stated = _field(entry, name)
    yield from _other(f"the ledger's {name}", stated, _field(certificate, path))


def _ledger(text, public_key) -> Iterator[str]:
  previous, total, first, requests = "0" * 64, 0.0, None, set()
  *lines, rest = text.split("\n")
  if rest or not lines:
    yield "the last line is cut short."
  for number, line in enumerate(lines):
    entry = json.loads(line)
    first = first or entry
    bare = {**entry, "hash": "", "signature": ""}
    digest = hashlib.sha256(json.dumps(bare).encode()).hexdigest()
    signer = _field(first, "signer") if public_key is None else public_key
    ratio = _number(entry, "distance") / _number(entry, "sigma")
    total += ratio**2
    whole = largest_mu(_number(first, "epsilon"), _number(first, "delta"))
    left = math.sqrt(max(whole**2 - total, 0.0))
    for holds, problem in (
      (json.dumps(entry) == line, "is not written as JSON writes it"),
      (entry["hash"] == digest, "was edited: its hash is another"),
      (entry["previous"] == previous, "does not follow the line before it"),
      (entry["index"] == number, "is not in its place"),
      (entry["request"] not in requests, "answers a request again"),
      (entry["signer"] == signer, "names another signer"),
      (_signed(signer, digest, entry["signature"]), "has no valid signature"),
      (ratio > 0 and entry["sigma"] > 0, "is not charged"),
      (total <= whole**2 * (1 + _RELATIVE), "exceeds the budget"),
      (entry["epsilon"] == first["epsilon"], "has another epsilon"),
      (entry["delta"] == first["delta"], "has another delta"),
      (math.isclose(entry["spent"] ** 2, total, rel_tol=1e-9), "spent other"),
      (abs(entry["left"] ** 2 - left**2) < 1e-5 * whole**2, "left is other"),
    ):
      if not holds:
        yield f"line {number + 1} {problem}."
    previous = digest
    requests.add(entry["request"])


def _signed(signer, digest, signature):
  try:
    raw = bytes.fromhex(signature)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
    key.verify(raw, _DOMAIN + digest.encode())
  except (InvalidSignature, ValueError):
    return False
  return raw.hex() == signature


def _network(case) -> _Network:
  inputs, weight = _array(case, "inputs"), _array(case, "weight")
  labels = np.asarray(_field(case, "labels"))
  classes = _array(_field(case, "corrected"), "bias").shape[-1]
  counts = weight.sum(1)
  weighting, form = _field(case, "weighting"), _field(case, "form")
  if weighting not in ("uniform", "sample"):
    raise _UnreadableError("weighting")
  if form not in ("stacked", "consensus"):
    raise _UnreadableError("form")
  scale = (counts > 0).sum() * counts / max(counts.sum(), 1)
  return _Network(
    inputs=np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], -1),
    targets=(labels[..., None] == np.arange(classes)).astype(float),
    weight=weight,
    scale=scale if weighting == "sample" else np.ones(len(counts)),
    mixing=_array(case, "mixing"),
    gamma=_number(case, "step_size"),
    l2=_number(case, "l2"),
    steps=int(_number(case, "local_steps")),
    consensus=form == "consensus",
  )


def _measure(network, x):
  """What retraining makes 0: norm, divisor to a distance, what cancels."""
  scale = network.magnitude(x)
  if network.consensus:
    return _norm(network.mean_gradient(x)), network.l2, scale
  moved = _norm(network.residual(x))
  if network.steps == 1:
    return moved / network.gamma, network.l2, scale
  scale *= network.gamma * network.steps
  return moved, 1 - network.contraction(), scale


def _distance(certificate):
  parts = ("max_distance", "retrain_error", "rounding")
  return sum(_number(certificate, name) for name in parts)


def _log_delta(epsilon, mu):
  first = _log_tail(epsilon / mu - mu / 2)
  second = epsilon + _log_tail(epsilon / mu + mu / 2)
  gap = -math.expm1(min(second - first, 0.0))
  return first + math.log(gap) if gap > 0 else -math.inf


def _log_tail(t):
  """`log Pr[N > t]`; the series' next term is below 1e-10 where it is used."""
  if t < 35:
    return math.log(math.erfc(t / math.sqrt(2)) / 2)
  series = -1 / t**2 + 3 / t**4 - 15 / t**6
  return -t * t / 2 - math.log(t * math.sqrt(2 * math.pi)) + math.log1p(series)


def _bisect(holds, low):
  """Where a condition begins to hold, above `low`, by 200 halvings."""
  if holds(low):
    return low
  high = 1.0
  while not holds(high):
    if high > 1e300:
      raise ArithmeticError("epsilon or delta is out of range")
    low, high = high, 2 * high
  for _ in range(200):
    middle = (low + high) / 2
    low, high = (low, middle) if holds(middle) else (middle, high)
  return high


def _other(path, stated, value):
  if stated != value or isinstance(stated, bool):
    yield f"{path} is {stated!r}; it must be {value!r}."


def _apart(path, stated, value, relative=_RELATIVE):
  if not abs(stated - value) <= relative * abs(value):
    yield f"{path} is {stated!r}; computed again it is {value!r}."


def _params(case, name):
  """Kernel and bias as one array, `[N, features + 1, classes]`."""
  params = _field(case, name)
  kernel, bias = _array(params, "kernel"), _array(params, "bias")
  return np.concatenate([kernel, bias[:, None]], 1)


def _norm(x):
  return float(np.linalg.norm(x))


def _field(mapping, path):
  for name in path.split("."):
    if not isinstance(mapping, Mapping) or name not in mapping:
      raise _UnreadableError(path)
    mapping = mapping[name]
  return mapping


def _number(mapping, path):
  value = _field(mapping, path)
  if isinstance(value, Mapping):  # with what it was derived from
    value = value.get("result")
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise _UnreadableError(path)
  if not math.isfinite(value):
    raise _UnreadableError(path)
  return float(value)


def _ids(case, name):
  ids = np.asarray(_field(case, name))
  if ids.ndim != 1:
    raise _UnreadableError(name)
  return ids.tolist()


def _array(mapping, name):
  try:
    return np.asarray(_field(mapping, name), np.float64)
  except (TypeError, ValueError) as error:
    raise _UnreadableError(name) from error
