"""Likelihood-ratio tests of releases that are as far as certificates allow.

Both sides are released by `certified`: params that sit at `max_distance` from
the optimum in a direction in which no record bends the risk, where bounds are
attained, and retraining's, as far on the other side as the comparator allows.
The test is the best there is between two such Gaussians: by the place along the
line between them, with a threshold that follows from the claims alone.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from scipy import stats

from junlearn.certify import calibrate, noise
from junlearn.certify.derived import head_of
from junlearn.certify.release import Bound, Release, certified, describe
from junlearn.clients import retraining, topology
from junlearn.clients.training import Training
from junlearn.methods import newton
from junlearn.model import from_linen
from junlearn.transform import Request, Result

MAX_DISTANCE, COMPARATOR = 0.01, 0.003
_L2, _STEP, _LOCAL_STEPS, _CLASSES, _N = 0.1, 0.5, 3, 2, 6
_NEAR = 1e-6  # the worst params stay within the limit by so much
_CONFIDENCE, _CHUNK = 0.95, 50_000
_MODEL = from_linen(linen.Dense(_CLASSES, use_bias=False))
_FEATURES = "Drawn at random, with nothing learned from any record."


class Instance(NamedTuple):
  """A worst case.

  Attributes:
    bound: what `certified` takes.
    request: that is answered.
    worst: params as far from the optimum as they may be.
    retrained: what retraining gives.
  """

  bound: Bound
  request: Request
  worst: Any
  retrained: Any


class Finding(NamedTuple):
  """What the tests came to, the worse of both directions.

  Attributes:
    delta: measured at the claimed epsilon.
    least_delta: its lower end, at 95 % confidence.
    epsilon: the smallest that is consistent with what was counted.
    least_epsilon: its lower end.
  """

  delta: float
  least_delta: float
  epsilon: float
  least_epsilon: float


def instances() -> dict[str, Callable[[], Instance]]:
  """One for each pair of a form and a norm that certificates know."""
  return {
    "one model, joint": lambda: _instance("single", 1, 1),
    "stacked clients, joint": lambda: _instance("stacked", 3, 1),
    "stacked clients, 3 local steps, joint": lambda: _instance(
      "stacked", 3, _LOCAL_STEPS
    ),
    "consensus of 8 clients, row": lambda: _instance("consensus", 8, 1),
  }


def _instance(form: str, clients: int, local_steps: int) -> Instance:
  """Two features, of which one is 0 in every record, and two classes.

  The labels are such that every client's optimum is 0: half of its records are
  of each class, with the same inputs.
  """
  inputs = np.zeros((clients, _N, 2))
  inputs[..., 0] = np.repeat(np.linspace(-1, 1, _N // 2), 2)
  examples = {
    "input": jnp.asarray(inputs),
    "label": jnp.asarray(np.tile([0, 1], (clients, _N // 2))),
    "id": jnp.arange(clients * _N).reshape(clients, _N),
  }
  forget = np.zeros((clients, _N), np.float32)
  forget[0, :2] = 1
  parts = [{**examples, "weight": jnp.asarray(w)} for w in (forget, 1 - forget)]
  direction = np.zeros((clients, 2, _CLASSES))
  direction[:, 1, 0] = 1
  if form != "consensus":
    direction /= math.sqrt(clients)

  def at(place):
    kernel = jnp.asarray(place * direction)
    return {"params": {"kernel": kernel[0] if form == "single" else kernel}}

  if form == "single":
    parts = jax.tree.map(lambda leaf: leaf[0], parts)
    bound = newton.bound(
      _MODEL, l2=_L2, features=_FEATURES, comparator=COMPARATOR
    )
  else:
    gap = _STEP * _L2
    if local_steps > 1:
      gap = 1 - (1 - gap) ** local_steps
    bound = retraining.bound(
      _MODEL,
      Training(
        topology.metropolis_hastings(topology.ring(clients)),
        _STEP,
        _L2,
        local_steps,
      ),
      form=form,
      features=_FEATURES,
      tolerance=COMPARATOR * gap,
      head=head_of("softmax", input_norm=1.0, l2=_L2, num_classes=_CLASSES),
    )
  return Instance(
    bound,
    Request(*parts),
    worst=at(MAX_DISTANCE * (1 - _NEAR)),
    retrained=at(-bound.comparator * (1 - _NEAR)),
  )


def terms(
  instance: Instance, params: Any, epsilon: float, delta: float
) -> Release:
  """The `Release` of these params."""
  return describe(
    instance.bound,
    params,
    instance.request,
    epsilon=epsilon,
    delta=delta,
    max_distance=MAX_DISTANCE,
  )


def released(
  instance: Instance,
  params: Any,
  epsilon: float,
  delta: float,
  entropy: noise.Entropy,
) -> np.ndarray:
  """One release, end to end: the kernel."""
  release = certified(
    lambda key, params, request: Result(params, request, None),
    instance.bound,
    epsilon=epsilon,
    delta=delta,
    max_distance=MAX_DISTANCE,
    entropy=entropy,
  )
  result = release(jax.random.key(0), params, instance.request)
  return np.asarray(result.params["params"]["kernel"])


def many(
  instance: Instance,
  params: Any,
  release: Release,
  count: int,
  entropy: noise.Entropy,
  *,
  norm: noise.Norm | None = None,
  factor: float = 1.0,
) -> np.ndarray:
  """So many releases in one call of `noise.add`.

  What `released` gives for the same bytes, bit by bit: a draw reads the bytes
  of its own, and nothing else of a release is random (`same_releases`).

  Args:
    instance: gives the norm.
    params: as in `certified`.
    release: the terms.
    count: of releases.
    entropy: where the noise comes from.
    norm: the wrong one, for a control.
    factor: of the noise, for a control.

  Returns:
    `[count, ...]` kernels.
  """
  kernel = params["params"]["kernel"]
  # Where rows share the noise, axis 0 is theirs, and the releases' the next.
  shared = (norm or instance.bound.norm) == "row"
  axis = 1 if shared else 0
  stacked = jnp.repeat(jnp.expand_dims(kernel, axis), count, axis)
  noisy = noise.add(
    stacked,
    sigma=release.sigma * factor,
    step=release.grid,
    norm="row" if shared else "joint",
    entropy=entropy,
  )
  return np.moveaxis(np.asarray(noisy), axis, 0)


def same_releases(
  instance: Instance, epsilon: float, delta: float, count: int, seed: int
) -> bool:
  """Whether `released` and `many` are one function of the bytes drawn."""
  rng = np.random.default_rng(seed)
  release = terms(instance, instance.worst, epsilon, delta)
  drawn = []

  def entropy(number):
    drawn.append(rng.bytes(number))
    return drawn[-1]

  together = many(instance, instance.worst, release, count, entropy)
  words = np.frombuffer(drawn[0], np.uint64).reshape(2, count, -1)
  return all(
    np.array_equal(
      together[index],
      released(
        instance,
        instance.worst,
        epsilon,
        delta,
        lambda number, index=index: words[:, index].tobytes()[:number],
      ),
    )
    for index in range(count)
  )


def audit(
  instance: Instance,
  epsilon: float,
  delta: float,
  count: int,
  seed: int,
  *,
  norm: noise.Norm | None = None,
  factor: float = 1.0,
) -> Finding:
  """The likelihood-ratio test between so many releases of each side.

  Args:
    instance: the worst case.
    epsilon: claimed.
    delta: claimed.
    count: of releases, a side.
    seed: of the noise.
    norm: as in `many`.
    factor: as in `many`.
  """
  rng = np.random.default_rng(seed)
  release = terms(instance, instance.worst, epsilon, delta)
  again = terms(instance, instance.retrained, epsilon, delta)
  assert (release.sigma, release.grid) == (again.sigma, again.grid)
  a, b = (
    np.asarray(side["params"]["kernel"])
    for side in (instance.worst, instance.retrained)
  )
  noise_is_shared = instance.bound.norm == "row"
  # The mean of rows is one of them where they are equal.
  apart = (a - b).mean(0) if noise_is_shared else a - b
  length = np.linalg.norm(apart)

  def places(params):
    for size in _chunks(count):
      noisy = many(
        instance, params, release, size, rng.bytes, norm=norm, factor=factor
      )
      if noise_is_shared:
        noisy = noisy.mean(1)
      yield np.tensordot(noisy, apart / length, apart.ndim)

  worst, retrained = (
    np.concatenate(list(places(side)))
    for side in (instance.worst, instance.retrained)
  )
  start = float(np.vdot(b.mean(0) if noise_is_shared else b, apart) / length)
  # Of the noise along the line: what the tester knows of a control, too.
  spread = release.sigma * factor
  if noise_is_shared and norm == "joint":
    spread /= math.sqrt(len(a))
  # From retraining's mean in standard deviations, and the same mirrored.
  forward = [(side - start) / spread for side in (worst, retrained)]
  mirrored = [length / spread - side for side in reversed(forward)]
  distance = MAX_DISTANCE + instance.bound.comparator + release.rounding
  mu = distance / spread
  threshold = epsilon / mu + mu / 2
  findings = (
    _finding(*sides, threshold, epsilon, delta) for sides in (forward, mirrored)
  )
  return Finding(*map(max, *findings))


def _chunks(count: int) -> Iterator[int]:
  while count > 0:
    yield min(count, _CHUNK)
    count -= _CHUNK


def _finding(one, other, threshold, epsilon, delta) -> Finding:
  """Of the event that the score is above the threshold."""
  hits = [int(np.sum(score > threshold)) for score in (one, other)]
  count = len(one)
  p, q = (hit / count for hit in hits)
  tail = (1 - _CONFIDENCE) / 2
  least_p = float(stats.beta.ppf(tail, hits[0], count - hits[0] + 1))
  most_q = float(stats.beta.ppf(1 - tail, hits[1] + 1, count - hits[1]))
  return Finding(
    p - math.exp(epsilon) * q,
    least_p - math.exp(epsilon) * most_q,
    _log_ratio(p - delta, q),
    _log_ratio(least_p - delta, most_q),
  )


def _log_ratio(above: float, below: float) -> float:
  if above <= 0:
    return 0.0
  return max(math.log(above / below), 0.0) if below > 0 else math.inf


def epsilon_of_separate_draws(
  clients: int, epsilon: float, delta: float
) -> float:
  """What a consensus claims, if every row draws noise for itself: exactly.

  The mean of the rows has the noise of one divided by the square root of their
  number.
  """
  sigma = calibrate.gaussian_sigma(epsilon, delta, 1.0)
  return calibrate.gaussian_epsilon(delta, 1.0, sigma / math.sqrt(clients))
