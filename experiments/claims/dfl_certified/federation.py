"""Clients that train linear heads over a graph, in double precision.

Inputs are flat images of norm 1 with a constant feature, scaled to norm 1, so
that the constants of the bounds are public.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn.audit.predict import predict
from junlearn.certify import derived
from junlearn.certify.release import Bound
from junlearn.clients import retraining, rounds, topology
from junlearn.clients.training import Training
from junlearn.loss import cross_entropy
from junlearn.methods import decentralized_newton
from junlearn.model import Model, from_function
from junlearn.parallel.across import across
from junlearn.transform import Transform

CLIENTS = 8
TOLERANCE = 1e-12  # |X - T(X)|_F at which training ends
_MAX_ROUNDS = 50_000
_USUAL_STEP = 1.0
_FEATURES = (
  "Inputs are the pixels of each image and a constant, scaled to norm 1 image "
  "by image; nothing in them was made from other records."
)


class Head(NamedTuple):
  """A classifier whose logits are linear in its params.

  Attributes:
    classes: 10, or 2 for labels below 5 and others.
    model: of one client.
  """

  classes: int
  model: Model

  def start(self, features: int) -> jax.Array:
    """Zeros."""
    shape = (features,) if self.classes == 2 else (features, self.classes)
    return jnp.zeros(shape)

  def labelled(self, digits: Any) -> Any:
    """Examples of digits, with labels in [0, classes)."""
    label = digits["label"]
    if self.classes == 2:
      label = (label >= 5).astype(label.dtype)
    return {**digits, "label": label}

  def constants(self, l2: float) -> derived.Head:
    """Of a client's risk, for inputs of norm 1."""
    if self.classes == 2:
      return derived.head_of("logistic", input_norm=1.0, l2=l2)
    return derived.head_of(
      "softmax", input_norm=1.0, l2=l2, num_classes=self.classes
    )

  def accuracy(self, params: Any, digits: Any) -> np.ndarray:
    """Of each client's model: params `[clients, ...]` -> `[clients]`."""
    examples = self.labelled(digits)
    logits = predict(self.model, params, examples["input"], stacked=True)
    return np.mean(logits.argmax(-1) == examples["label"], axis=1)


def _two_logits(params, inputs):
  logit = (inputs @ params)[..., None]
  return jnp.concatenate([jnp.zeros_like(logit), logit], axis=-1)


HEADS = {
  "logistic": Head(2, from_function(_two_logits)),
  "softmax": Head(10, from_function(lambda params, inputs: inputs @ params)),
}


def features(examples: Any, *, centre: np.ndarray | None = None) -> Any:
  """The examples with inputs `[n, features]` of norm 1, less a centre."""
  x = np.asarray(examples["input"], np.float64)
  x = x.reshape(len(x), -1)
  if centre is not None:
    x = x - centre
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1) / np.sqrt(2)
  return {**examples, "input": x}


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
      features=_FEATURES,
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
    params, info = self._to_fixed_point(self.start(examples), examples)
    residual = float(info.residual[0])
    if not residual <= TOLERANCE:
      raise ArithmeticError(
        f"training ended at a residual of {residual:.2g}, above {TOLERANCE:g}."
      )
    return params

  @functools.cached_property
  def _to_fixed_point(self):
    return jax.jit(
      across(
        rounds.to_fixed_point(
          self.round, tolerance=TOLERANCE, max_rounds=_MAX_ROUNDS
        ),
        collective=True,
      )
    )

  def distance(self, residual: float) -> float:
    """To the fixed point, at most, where |X - T(X)|_F is the residual."""
    return self._bound(residual).comparator

  def rounds_to(self, target: float, params: Any, examples: Any) -> int:
    """Rounds of training from the params until |X - T(X)|_F is the target.

    Raises:
      ArithmeticError: if it is not reached.
    """
    count, residual = self._rounds_to(target, params, examples)
    if not residual <= target:
      raise ArithmeticError(f"{int(count)} rounds do not reach {target:.2g}.")
    return int(count)

  def residual(self, params: Any, examples: Any) -> float:
    """|X - T(X)|_F."""
    return float(self._rounds_to(math.inf, params, examples)[1])

  @functools.cached_property
  def _rounds_to(self):
    round_ = across(self.round, collective=True)

    def run(target, params, examples):
      def look(params, count):
        following = round_(params, examples)
        moved = optax.tree.norm(optax.tree.sub(params, following))
        return following, count, moved

      _, count, residual = jax.lax.while_loop(
        lambda state: (state[2] > target) & (state[1] < _MAX_ROUNDS),
        lambda state: look(state[0], state[1] + 1),
        look(params, jnp.int32(0)),
      )
      return count, residual

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def corrector(federation: Federation, **options: Any) -> Transform:
  """The federation's stacked correction, compiled once."""
  return federation.transform(**options)
