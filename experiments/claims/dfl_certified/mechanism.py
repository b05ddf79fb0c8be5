"""The certified release that the claims are about."""

from typing import Any

import jax
import numpy as np

from experiments.claims.dfl_certified.federation import Federation, corrector
from junlearn.certify.release import certified
from junlearn.transform import Request, Result

EPSILON, DELTA, MAX_DISTANCE = 1.0, 1e-5, 1e-3


def correct(federation: Federation, params: Any, request: Request) -> Any:
  """The params after the stacked correction, until the bound is met."""
  stage = corrector(federation, max_distance=MAX_DISTANCE)
  return stage(jax.random.key(0), params, request).params  # it draws nothing


def release(
  federation: Federation, params: Any, request: Request, *, seed: int
) -> Result:
  """The release of params as they are, the same for the same seed.

  Raises:
    NotReachedError: if they are not known to be near enough to retraining.
  """
  mechanism = certified(
    _unchanged,
    federation.bound,
    epsilon=EPSILON,
    delta=DELTA,
    max_distance=MAX_DISTANCE,
    entropy=np.random.default_rng(seed).bytes,
  )
  return mechanism(jax.random.key(0), params, request)


def _unchanged(key: Any, params: Any, request: Request) -> Result:
  del key
  return Result(params, request, {})
