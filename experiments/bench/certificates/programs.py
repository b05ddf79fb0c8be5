"""Linear heads and graphs, as the library sees them and as the oracle does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from junlearn.clients import topology
from junlearn.clients.training import Training
from junlearn.model import Model, from_function, from_linen

INPUTS = 4  # numbers of an input
CLIENTS, STEP = 4, 0.3
GRAPHS = {
  "ring": topology.metropolis_hastings(topology.ring(CLIENTS)),
  "complete": topology.metropolis_hastings(topology.complete(CLIENTS)),
  "random": topology.metropolis_hastings(
    topology.erdos_renyi(CLIENTS, 0.6, seed=3)
  ),
  "path": topology.metropolis_hastings(
    topology.from_edges(CLIENTS, [(0, 1), (1, 2), (2, 3)])
  ),
  "one left": topology.remove(topology.complete(CLIENTS), 2),
}


class _Conv(linen.Module):
  """The mean over places of a convolution."""

  classes: int

  @linen.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = linen.Conv(self.classes, (2,), padding="VALID")(x[..., None])
    return jnp.mean(x, axis=1)


class Head(NamedTuple):
  """A model, and what the oracle knows of it.

  Attributes:
    model: `classes -> Model`.
    features: `inputs -> features`, of extended arrays.
    params: theta to the model's params.
    expand: `classes -> [columns, classes]`.
    squared: whether the loss is the squared one.
    offset: whether the inputs' first number is added to the outputs, k times.
  """

  model: Callable[[int], Model]
  features: Callable[[np.ndarray], np.ndarray]
  params: Callable[[Any], Any]
  expand: Callable[[int], np.ndarray] = np.eye
  squared: bool = False
  offset: bool = False


def _with_bias(x):
  return np.concatenate([np.ones_like(x[..., :1]), x], -1)


def _windows(x):
  places = INPUTS - 1
  sums = [x[..., k : k + places].sum(-1) / places for k in range(2)]
  return _with_bias(np.stack(sums, -1))


def _dense_params(theta):
  return {"params": {"bias": theta[..., 0, :], "kernel": theta[..., 1:, :]}}


def _conv_params(theta):
  conv = {"bias": theta[..., 0, :], "kernel": theta[..., 1:, None, :]}
  return {"params": {"Conv_0": conv}}


def _shifted(params, x):
  """Affine, not linear: something is added that no param moves."""
  outputs = x @ params
  return outputs + x[:, :1] * jnp.arange(outputs.shape[-1], dtype=x.dtype)


def _opposite(params, x):
  """Two scores of one number, the second the negative of the first."""
  score = x @ params
  return jnp.concatenate([score, -score], -1)


HEADS = {
  "dense": Head(
    lambda classes: from_linen(linen.Dense(classes)), _with_bias, _dense_params
  ),
  "dense, no bias": Head(
    lambda classes: from_linen(linen.Dense(classes, use_bias=False)),
    lambda x: x,
    lambda theta: {"params": {"kernel": theta}},
  ),
  "function": Head(
    lambda classes: from_function(_shifted),
    lambda x: x,
    lambda theta: theta,
    offset=True,
  ),
  "opposite scores": Head(
    lambda classes: from_function(_opposite),
    lambda x: x,
    lambda theta: theta,
    lambda classes: np.array([[1.0, -1.0]]),
  ),
  "convolution": Head(
    lambda classes: from_linen(_Conv(classes)), _windows, _conv_params
  ),
  "squared loss": Head(
    lambda classes: from_function(lambda params, x: x @ params),
    lambda x: x,
    lambda theta: theta,
    squared=True,
  ),
}


def squared_loss(outputs: jax.Array, examples: Any) -> jax.Array:
  """A user's loss."""
  return jnp.sum((outputs - examples["target"]) ** 2, -1)


class Program(NamedTuple):
  """What is compiled once.

  Attributes:
    head: a key of `HEADS`.
    classes: 2 to 5.
    l2: of the penalty.
    form: "single", "stacked" or "consensus".
    graph: a key of `GRAPHS`; not read for a single model, as what follows.
    weighting: of clients.
    local_steps: 1, or 2 to 4 with cross-entropy.
  """

  head: str
  classes: int
  l2: float
  form: str = "single"
  graph: str = "ring"
  weighting: str = "uniform"
  local_steps: int = 1

  @property
  def training(self) -> Training:
    """Of the clients."""
    mixing = GRAPHS[self.graph]
    return Training(mixing, STEP, self.l2, self.local_steps, self.weighting)
