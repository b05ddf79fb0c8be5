"""The certified release that the claims are about."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from experiments.claims.dfl.federation import Federation
from junlearn.certify import certified
from junlearn.transform import Result, Transform

EPSILON, DELTA, MAX_DISTANCE = 1.0, 1e-5, 1e-3


@functools.lru_cache(maxsize=16)
def releaser(
  federation: Federation, stage: Transform | None = None
) -> Callable[..., tuple[Result, Result]]:
  """`(key, params, request) -> (stage's result, release)`, compiled once.

  Args:
    federation: what retraining refers to.
    stage: None for the stacked correction until its certificate is met.
  """
  stage = stage or federation.transform(max_distance=MAX_DISTANCE)

  def release(key, params, request):
    corrected = stage(key, params, request)
    mechanism = certified(
      lambda *_: corrected,  # it has run already
      federation.bound,
      epsilon=EPSILON,
      delta=DELTA,
      max_distance=MAX_DISTANCE,
      comparator=federation.slack,
    )
    return corrected, mechanism(key, params, request)

  return jax.jit(release)


def unchanged(key: Any, params: Any, request: Any) -> Result:
  """The stage that corrects nothing."""
  del key
  return Result(params, request, {})
