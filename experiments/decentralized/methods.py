"""The methods that are compared in networks, and the certified corrections."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.decentralized import metrics
from experiments.decentralized.backend import compiled, everywhere
from experiments.decentralized.tasks import Network
from junlearn.clients.retraining import Form
from junlearn.methods import decentralized_newton
from junlearn.model import Model
from junlearn.parallel.across import Backend
from junlearn.transform import Request, Result, Transform

# The form of those whose releases are certified.
METHODS: Mapping[str, Form | None] = {
  "newton": "stacked",
  "consensus": "consensus",
  "finetune": None,
}


def newton(
  model: Model,
  network: Network,
  form: Form,
  *,
  max_distance: float,
  num_steps: int,
  backend: Backend,
) -> Transform:
  """So many Newton steps towards what retraining leads to, or fewer.

  Args:
    model: of a client.
    network: whose training leads there.
    form: where to, see `clients.retraining`.
    max_distance: at which it stops.
    num_steps: at most.
    backend: how the clients are run.
  """
  transform = decentralized_newton.transform(
    model,
    network.after,
    form=form,
    max_distance=max_distance,
    num_steps=num_steps,
    smoothness=network.head.values.smoothness,
    backend=backend,
  )
  return everywhere(compiled(transform, backend), backend)


def one_by_one(
  step: Transform, params: Any, request: Request, reference: Any, *, most: int
) -> Result:
  """One Newton step after the other, until there is nothing left to do.

  Args:
    step: `newton` of one step.
    params: to begin with.
    request: that is answered.
    reference: params of retraining.
    most: steps.

  Returns:
    The info is the history: communication rounds so far, of which a product
    with the curvature takes one and so does a gradient, and the distance to the
    reference.
  """
  result = Result(params, request, None)
  history = [[0, metrics.distance(params, reference)]]
  for _ in range(most):
    result = step(jax.random.key(0), result.params, request)
    communicated = int(np.sum(result.info.solves.steps)) + 2
    distance = metrics.distance(result.params, reference)
    history.append([history[-1][0] + communicated, distance])
    if result.info.converged or not result.info.steps:
      break
  return result._replace(info=history)
