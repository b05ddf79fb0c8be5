"""Clients that train linear heads over a graph, in double precision."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.dfl_certified.heads import FEATURES, Head
from junlearn.certify.release import Bound
from junlearn.clients import retraining, rounds, topology
from junlearn.clients.training import Training
from junlearn.loss import cross_entropy
from junlearn.methods import decentralized_newton
from junlearn.parallel.across import across
from junlearn.transform import Transform

CLIENTS = 8
TOLERANCE = 1e-12  # |X - T(X)|_F at which training ends
_MAX_ROUNDS = 50_000
_USUAL_STEP = 1.0


class Federation:
  """Clients that train a head over a graph, and the correction after it.

  Attributes:
    head: what they train.
    training: how.
    constants: of every client's risk.
    bound: how far params are from retraining.
  """

  def __init__(
    self,
    head: Head,
    mixing: np.ndarray,
    *,
    l2: float,
    local_steps: int,
    longest: bool = False,
  ):
    self.head, self.constants = head, head.constants(l2)
    smallest = topology.spectrum(mixing).smallest if local_steps == 1 else 0.0
    step = (1 + smallest) / self.constants.values.smoothness  # stable up to it
    if not longest:
      step = min(step, _USUAL_STEP)
    self.training = Training(mixing, step, l2, local_steps)
    self.round = self.training.round(cross_entropy(head.model))
    self.bound = self._bound(TOLERANCE)

  def _bound(self, tolerance: float) -> Bound:
    return retraining.bound(
      self.head.model,
      self.training,
      features=FEATURES,
      tolerance=tolerance,
      head=self.constants,
    )

  def transform(self, **options: Any) -> Transform:
    """The stacked correction."""
    return decentralized_newton.transform(
      self.head.model,
      self.training,
      smoothness=self.constants.values.smoothness,
      **options,
    )

  def start(self, examples: Any) -> jax.Array:
    """Zeros for every client."""
    start = self.head.start(examples["input"].shape[-1])
    return jnp.zeros((CLIENTS, *start.shape))

  def train(self, examples: Any) -> jax.Array:
    """All clients' params where further rounds no longer change them.

    Raises:
      ArithmeticError: if the tolerance is not reached.
    """
    return self._run(TOLERANCE, self.start(examples), examples)[0]

  def rounds_to(self, target: float, params: Any, examples: Any) -> int:
    """Rounds of training from the params until |X - T(X)|_F is the target.

    Raises:
      ArithmeticError: if it is not reached.
    """
    return int(self._run(target, params, examples)[1].rounds[0])

  def residual(self, params: Any, examples: Any) -> float:
    """|X - T(X)|_F."""
    return float(self._run(math.inf, params, examples)[1].residual[0])

  def distance(self, residual: float) -> float:
    """To the fixed point, at most, where |X - T(X)|_F is the residual."""
    return self._bound(residual).retrain_error

  def _run(self, tolerance, params, examples):
    params, info = self._to_fixed_point(tolerance, params, examples)
    residual = float(info.residual[0])
    if not residual <= tolerance:
      raise ArithmeticError(
        f"training ended at a residual of {residual:.2g}, above {tolerance:g}."
      )
    return params, info

  @functools.cached_property
  def _to_fixed_point(self):
    def run(tolerance, params, examples):
      body = rounds.to_fixed_point(
        self.round, tolerance=tolerance, max_rounds=_MAX_ROUNDS
      )
      return across(body, collective=True)(params, examples)

    return jax.jit(run)  # once for all tolerances


@functools.lru_cache(maxsize=16)
def corrector(federation: Federation, **options: Any) -> Transform:
  """The federation's stacked correction, compiled once."""
  return federation.transform(**options)
