"""What is released where a correction does not come near enough."""

from collections.abc import Callable
from typing import Any

from experiments.release.terms import Terms
from junlearn.certify import Bound
from junlearn.transform import Request


def settle(
  terms: Terms, bound: Bound, request: Request, phase: Callable[[str], Any]
) -> tuple[Any, bool]:
  """The params that noise is added to, and whether they were retrained.

  Args:
    terms: of the release; without a fallback, corrected params are taken as
      they are, and refused later if they are too far away.
    bound: on the distance to retraining.
    request: that is answered.
    phase: gives the params of the phase "corrected" or "retrained".
  """
  corrected = phase("corrected")
  if terms.fallback == "none":
    return corrected, False
  if float(bound.distance(corrected, request)) <= terms.max_distance:
    return corrected, False
  return phase("retrained"), True
