"""Softmax regression over clients on a ring, and their retraining in NumPy."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from junlearn.certify import certified
from junlearn.certify.derived import Head, head_of
from junlearn.clients import data, retraining, topology
from junlearn.clients.training import Training
from junlearn.methods import decentralized_newton
from junlearn.model import from_function
from junlearn.transform import Request, Result
from tests import softmax

L2, STEP, FEATURES, CLASSES = 0.05, 0.3, 4, 3
MODEL = from_function(
  lambda params, inputs: inputs @ params["kernel"] + params["bias"]
)
LOCAL_STEPS = 3


CASES = {
  "records": {},
  "client, by sample": {"removed": 1, "weighting": "sample"},
  "local steps, by sample": {
    "local_steps": LOCAL_STEPS,
    "weighting": "sample",
  },
  "local steps, client": {"local_steps": LOCAL_STEPS, "removed": 1},
}
CONSENSUS = {
  "records": {},
  "client of as many": {"removed": 1, "equal": True},
  "client, by sample": {"removed": 1, "weighting": "sample"},
}


class Setting(NamedTuple):
  """Clients of unequal size on a ring, and what one of them must forget."""

  training: Training
  request: Request
  params: dict[str, Any]
  head: Head


def setting(
  count=4, *, weighting="uniform", removed=None, local_steps=1, equal=False
):
  rng = np.random.default_rng(count)
  clients = []
  for client in range(count):
    n = 6 if equal else 4 + 2 * (client % 3)
    inputs = rng.normal(size=(n, FEATURES - 1))
    # With the constant 1 of the bias, of norm 1.
    inputs /= np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1)
    clients.append(
      {
        "input": inputs / np.sqrt(2),
        "label": rng.integers(0, CLASSES, n).astype(np.int32),
        "id": (np.arange(n) + 100 * client).astype(np.int32),
      }
    )
  examples = data.stack(clients)
  adjacency = topology.ring(count)
  if removed is None:
    request = data.request_by_id(examples, [100, 101])
    mixing = topology.metropolis_hastings(adjacency)
  else:
    request = data.request_by_client(examples, removed)
    mixing = topology.remove(adjacency, removed)
  params = {
    "bias": rng.normal(size=(count, CLASSES)),
    "kernel": rng.normal(size=(count, FEATURES - 1, CLASSES)),
  }
  head = head_of(
    "softmax",
    input_norm=np.sqrt(1.5),
    l2=L2,
    num_classes=CLASSES,
    scale=2.0 if weighting == "sample" else 1.0,
  )
  training = Training(mixing, STEP, L2, local_steps, weighting)
  to_jax = functools.partial(jax.tree.map, jnp.asarray)
  return Setting(training, to_jax(request), to_jax(params), head)


def rows(params):
  """Params of the clients, `[clients, features * classes]`."""
  parts = params["bias"][:, None], params["kernel"]
  return np.concatenate(parts, 1).reshape(len(parts[0]), -1)


class Dense:
  """The stacked system of a setting, written out."""

  def __init__(self, training, retain):
    weight = np.asarray(retain["weight"], np.float64)
    size = weight.sum(1)
    scale = np.ones(len(size))
    if training.weighting == "sample":
      scale = (size > 0).sum() * size / size.sum()
    x = np.asarray(retain["input"])
    x = np.concatenate([np.ones((*x.shape[:2], 1)), x], 2)
    labels = np.asarray(retain["label"])
    self.clients = list(zip(x, labels, weight, scale, strict=True))
    self.mixing = np.asarray(training.mixing)
    self.local_steps = training.local_steps
    self.number = FEATURES * CLASSES

  def gradient(self, X):
    return np.stack(
      [
        softmax.gradient(theta, x, y, w, L2, s)
        for theta, (x, y, w, s) in zip(X, self.clients, strict=True)
      ]
    )

  def hessians(self, X):
    return [
      softmax.hessian(theta, x, w, L2, s)
      for theta, (x, _, w, s) in zip(X, self.clients, strict=True)
    ]

  def round(self, X):
    """T(X), and its Jacobian on the flattened X."""
    mix, each = np.kron(self.mixing, np.eye(self.number)), len(X)
    if self.local_steps == 1:
      jacobian = mix - STEP * _blocks(self.hessians(X))
      return self.mixing @ X - STEP * self.gradient(X), jacobian
    local = np.eye(each * self.number)
    for _ in range(self.local_steps):
      step = np.eye(len(local)) - STEP * _blocks(self.hessians(X))
      local = step @ local
      X = X - STEP * self.gradient(X)
    return self.mixing @ X, mix @ local

  def step(self, X):
    """(I - J)^{-1} (T(X) - X)."""
    after, jacobian = self.round(X)
    identity = np.eye(len(jacobian))
    moved = np.linalg.solve(identity - jacobian, (after - X).ravel())
    return moved.reshape(X.shape)

  def fixed_point(self):
    X = np.zeros((len(self.clients), self.number))
    for _ in range(50):
      step = self.step(X)
      X = X + step
      if np.linalg.norm(step) < 1e-13:
        return X
    raise AssertionError("no fixed point was reached")


def _blocks(matrices):
  n = len(matrices)
  return np.block(
    [[m if i == j else 0 * m for j in range(n)] for i, m in enumerate(matrices)]
  )


def as_params(X):
  X = jnp.asarray(X).reshape(len(X), FEATURES, CLASSES)
  return {"bias": X[:, 0], "kernel": X[:, 1:]}


def present(name):
  """Which clients of a case of `CONSENSUS` have not left."""
  return np.arange(4) != CONSENSUS[name].get("removed")


def mean_risk(case, here):
  """(1/N) sum_i F_i over the clients that are here: its derivatives."""
  dense = Dense(case.training, case.request.retain)
  count = len(here)

  def gradient(theta):
    return dense.gradient(np.tile(theta, (count, 1)))[here].mean(0)

  def hessian(theta):
    return np.stack(dense.hessians(np.tile(theta, (count, 1))))[here].mean(0)

  return gradient, hessian


def bound_of(case, *, model=MODEL, **options):
  settings = {"features": "Points of a sphere.", "head": case.head, **options}
  return retraining.bound(model, case.training, **settings)


def no_entropy(size):
  raise AssertionError(f"{size} bytes of noise were drawn")


def stay(key, params, request):
  del key
  return Result(params, request, {})


def release(case, form="stacked", *, max_distance=1e-3, **options):
  """`stage`, `fallback` and `entropy` are for `certified`."""
  names = {"fallback", "entropy"} & options.keys()
  settings = {name: options.pop(name) for name in names}
  correct = decentralized_newton.transform(
    MODEL,
    case.training,
    form=form,
    max_distance=max_distance,
    smoothness=case.head.values.smoothness,
  )
  return certified(
    options.pop("stage", correct),
    bound_of(case, form=form, **options),
    epsilon=1.0,
    delta=1e-5,
    max_distance=max_distance,
    **settings,
  )
