"""Likelihood-ratio tests of releases that are as far as certificates allow.

Both sides are released by `certified`: the worst params, and retraining's, as
far on the other side as its error allows. The test is the best there is between
two such Gaussians: by the place along the line between them, with a threshold
that follows from the claims alone.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.bench.certificates.worst import MAX_DISTANCE, Instance, terms
from junlearn.certify import calibrate, noise
from junlearn.certify.release import Release, certified
from junlearn.transform import Result

_CONFIDENCE, _CHUNK = 0.95, 50_000


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

  What `certified` gives for the same bytes, bit by bit: a draw reads the bytes
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
  """Whether `certified` and `many` are one function of the bytes drawn."""
  rng = np.random.default_rng(seed)
  release = terms(instance, instance.worst, epsilon, delta)
  drawn = []

  def entropy(number):
    drawn.append(rng.bytes(number))
    return drawn[-1]

  together = many(instance, instance.worst, release, count, entropy)
  words = np.frombuffer(drawn[0], np.uint64).reshape(2, count, -1)

  def one(index):
    mechanism = certified(
      lambda key, params, request: Result(params, request, None),
      instance.bound,
      epsilon=epsilon,
      delta=delta,
      max_distance=MAX_DISTANCE,
      entropy=lambda number: words[:, index].tobytes()[:number],
    )
    result = mechanism(jax.random.key(0), instance.worst, instance.request)
    return result.params["params"]["kernel"]

  return all(np.array_equal(together[i], one(i)) for i in range(count))


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
  distance = MAX_DISTANCE + instance.bound.retrain_error + release.rounding
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
