"""Requests of which some params are as far off as certificates allow.

They sit at `max_distance` from the optimum in a direction in which no record
bends the risk, where bounds are attained.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from junlearn.certify.derived import head_of
from junlearn.certify.release import Bound, Release, describe
from junlearn.clients import retraining, topology
from junlearn.clients.training import Training
from junlearn.methods import newton
from junlearn.model import from_linen
from junlearn.transform import Request

MAX_DISTANCE, RETRAIN_ERROR = 0.01, 0.003
_L2, _STEP, _LOCAL_STEPS, _CLASSES, _N = 0.1, 0.5, 3, 2, 6
_NEAR = 1e-6  # the worst params stay within the limit by so much
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
      _MODEL, l2=_L2, features=_FEATURES, retrain_error=RETRAIN_ERROR
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
      tolerance=RETRAIN_ERROR * gap,
      head=head_of("softmax", input_norm=1.0, l2=_L2, num_classes=_CLASSES),
    )
  return Instance(
    bound,
    Request(*parts),
    worst=at(MAX_DISTANCE * (1 - _NEAR)),
    retrained=at(-bound.retrain_error * (1 - _NEAR)),
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
