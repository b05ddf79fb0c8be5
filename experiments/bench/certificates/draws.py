"""Releases drawn at random, sound and broken, and what became of them.

`attempt` asks `certified` for one release and an oracle
(`oracle`) how far the params before noise truly were from exact
retraining.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.certificates import oracle
from experiments.bench.certificates.broken import (
  BROKEN,
  MIXINGS,
  not_convex,
  perceptron,
)
from experiments.bench.certificates.programs import (
  CLIENTS,
  GRAPHS,
  HEADS,
  INPUTS,
  STEP,
  Program,
  squared_loss,
)
from junlearn.certify import derived
from junlearn.certify.release import Bound, NotReachedError, certified
from junlearn.clients import retraining
from junlearn.loss import softmax_cross_entropy
from junlearn.methods import newton
from junlearn.transform import Request, Result

EPSILON, DELTA = 1.0, 1e-5
_EXAMPLES = 40
_ROUNDING = 1e-13  # relative, of the law itself
_FEATURES = "Drawn at random, with nothing learned from any record."


class Draw(NamedTuple):
  """What is drawn for one release, beside the program.

  Attributes:
    seed: of the numbers.
    scale: of the inputs; at most 1 with several local steps.
    present: records, 3 to 40, the forgotten ones included.
    max_distance: as in `certified`.
    offset: of the params from the optimum, in units of `max_distance`.
    direction: "random"; "flat", in which the risk bends least; or "origin",
      for params that are all 0.
    fallback: whether one gives the optimum, in double precision.
    broken: a key of `BROKEN`, or "".
  """

  seed: int
  scale: float
  present: int
  max_distance: float
  offset: float
  direction: str
  fallback: bool
  broken: str


class Outcome(NamedTuple):
  """What became of a release that was asked for.

  Attributes:
    kind: "released", "not reached" or "refused".
    reason: the error's text.
    distance: of the params before noise from exact retraining.
    bound: the largest that `certified` measured this distance to be.
  """

  kind: str
  reason: str = ""
  distance: float = 0.0
  bound: float = 0.0


def attempt(program: Program, draw: Draw) -> Outcome:
  """Asks for one release; must run in double precision."""
  rng = np.random.default_rng(draw.seed)
  parts, problem = _problem(program, draw, rng)
  stacked = program.form == "stacked"
  equation = oracle.fixed_point if stacked else oracle.minimum
  optimum = oracle.solve(equation, problem)
  place = _place(draw, problem, optimum, rng)

  def as_params(theta):
    rows = 1 if program.form == "single" else CLIENTS
    theta = np.broadcast_to(theta.astype(float), (rows, *theta.shape[1:]))
    theta = theta[0] if program.form == "single" else theta
    return jax.tree.map(jnp.asarray, HEADS[program.head].params(theta))

  def stage(key, params, request):
    return Result(params, request, None)

  def retrain(key, params, request):
    return Result(as_params(optimum), request, None)

  params = as_params(place)
  if draw.broken in BROKEN:
    params = BROKEN[draw.broken].data(parts, params, program)
  parts = jax.tree.map(jnp.asarray, parts)
  if program.form == "single":
    parts = jax.tree.map(lambda leaf: leaf[0], parts)
  request = Request(parts["forget"], parts["retain"])
  try:
    release = certified(
      stage,
      _bound(program, draw.broken),
      epsilon=EPSILON,
      delta=DELTA,
      max_distance=draw.max_distance,
      fallback=retrain if draw.fallback and not draw.broken else None,
      entropy=rng.bytes,
    )
    terms = release(jax.random.key(0), params, request).info["release"]
  except NotReachedError as error:
    return Outcome("not reached", str(error))
  except ValueError as error:
    return Outcome("refused", str(error))
  before = optimum if terms.fallback else place
  return Outcome(
    "released",
    distance=oracle.distance(before.astype(float), optimum),
    bound=terms.measured.result,
  )


def _problem(program, draw, rng):
  """The parts of a request, in NumPy and for clients, and the risks."""
  head, clients = HEADS[program.head], 1
  mixing = np.ones((1, 1))
  if program.form != "single":
    clients, mixing = CLIENTS, GRAPHS[program.graph]
  shape = clients, _EXAMPLES // clients
  x = rng.normal(size=(*shape, INPUTS))
  x[..., -1] *= rng.integers(2)  # a feature that is always 0, or not
  if program.local_steps > 1:
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1)
  x *= draw.scale
  label = rng.integers(0, program.classes, shape)
  target = rng.normal(size=(*shape, program.classes))
  order = rng.permutation(_EXAMPLES)
  gone = rng.integers(1, draw.present)
  forget, retain = np.zeros((2, _EXAMPLES), np.float32)
  forget[order[:gone]] = 1
  retain[order[gone : draw.present]] = 1
  examples = {
    "input": x,
    "label": label,
    "id": np.arange(_EXAMPLES).reshape(shape),
    "target": target,
  }
  parts = {
    name: {**examples, "weight": weight.reshape(shape).copy()}
    for name, weight in (("forget", forget), ("retain", retain))
  }
  extended = x.astype(oracle.EXTENDED)
  offset = extended[..., :1] * np.arange(program.classes) * head.offset
  if not head.squared:
    target = np.eye(program.classes)[label]
  return parts, oracle.Problem(
    head.features(extended),
    offset,
    target,
    parts["retain"]["weight"].copy(),
    head.expand(program.classes),
    head.squared,
    program.l2,
    program.weighting == "sample" and clients > 1,
    mixing,
    STEP,
    program.local_steps,
  )


def _place(draw, problem, optimum, rng):
  """Params to release, of the optimum's shape."""
  if draw.direction == "origin":
    return np.zeros_like(optimum)
  direction = rng.normal(size=optimum.shape)
  if draw.direction == "flat":
    present = problem.features[problem.weight > 0].astype(float)
    least = np.linalg.svd(present)[2][-1]
    # Scores that all rise alike change no probability.
    direction = np.ones_like(direction) * least[:, None]
  direction = direction / np.linalg.norm(direction)
  return optimum + draw.max_distance * draw.offset * direction


@functools.cache  # compiled once for all draws
def _bound(program: Program, broken: str) -> Bound:
  head = HEADS[program.head]
  model, loss = head.model(program.classes), softmax_cross_entropy
  convex = ""
  if head.squared:
    loss, convex = squared_loss, "It is a sum of squares."
  if broken == "model not linear":
    model = perceptron(model)
  if broken == "loss not convex":
    loss, convex = not_convex, "So it is said."
  if broken == "loss not stated convex":
    loss, convex = squared_loss, " "
  stated = {"features": _FEATURES, "output_loss": loss, "convex": convex}
  if program.form == "single":
    return newton.bound(model, l2=program.l2, **stated)
  training = program.training
  if broken in MIXINGS:
    training = training._replace(mixing=MIXINGS[broken](training.mixing))
  # Inputs are at most 1 long, and the bias counts as another 1.
  return retraining.bound(
    model,
    training,
    form=program.form,
    head=derived.head_of(
      "softmax",
      input_norm=1e-3 if broken == "constants too small" else 2**0.5,
      l2=program.l2,
      num_classes=program.classes,
      scale=CLIENTS if program.weighting == "sample" else 1.0,
    ),
    **stated,
  )


def holds(outcome: Outcome, draw: Draw) -> bool:
  """The law: nothing is released that is further away than was measured.

  What is broken is refused, for that reason and not for its distance. A sound
  draw may be refused for one reason, params so large beside the noise that
  their last digits would show through it.
  """
  if draw.broken:
    late = BROKEN[draw.broken].late and outcome.kind == "not reached"
    return late or outcome.kind == "refused"
  if outcome.kind == "released":
    within = outcome.distance <= outcome.bound * (1 + _ROUNDING)
    return within and outcome.bound <= draw.max_distance
  return outcome.kind == "not reached" or outcome.reason.startswith("sigma is ")
