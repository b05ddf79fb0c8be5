"""Logistic regression over clients, and the ways to run a body of one."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from junlearn.clients import data, topology
from junlearn.loss import Loss, cross_entropy
from junlearn.model import Model, from_function
from junlearn.parallel.across import across

BACKENDS = ("vmap", "pmap")
COUNTS = (4, 8, 64)


class Clients(NamedTuple):
  """Stacked examples, and params that differ between clients."""

  model: Model
  loss: Loss
  examples: dict[str, Any]
  params: dict[str, Any]
  mixing: np.ndarray


def _apply(params, inputs):
  score = inputs @ params["w"] + params["b"]
  return jnp.stack([jnp.zeros_like(score), score], -1)


MODEL = from_function(_apply)
LOSS = cross_entropy(MODEL)


def logistic(count: int, dtype: Any = np.float32) -> Clients:
  """A ring of small clients of different sizes."""
  rng = np.random.default_rng(count)
  clients = []
  for client in range(count):
    n = 3 + client % 4
    clients.append(
      {
        "input": rng.normal(size=(n, 5)).astype(dtype),
        "label": rng.integers(0, 2, n).astype(np.int32),
        "id": (np.arange(n) + 10 * client).astype(np.int32),
      }
    )
  params = {
    "w": rng.normal(size=(count, 5)).astype(dtype),
    "b": rng.normal(size=count).astype(dtype),
  }
  mixing = topology.metropolis_hastings(topology.ring(count))
  return Clients(MODEL, LOSS, data.stack(clients), params, mixing)


@functools.cache
def digits(how: str, count: int = 8) -> Clients:
  """Digits below 5 against the others, 1,600 of them, in double precision."""
  images, labels = datasets.load_digits(return_X_y=True)
  inputs = np.hstack([images, np.full((len(images), 1), 16.0)])[:1600]
  inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
  examples = {
    "input": inputs,
    # Shares are sorted by digit; the label to learn is one of two.
    "label": labels[:1600].astype(np.int32),
    "id": np.arange(1600, dtype=np.int32),
  }
  shards = data.partition(examples, count, how=how)
  stacked = data.stack(shards)
  stacked["label"] = (stacked["label"] >= 5).astype(np.int32)
  params = {"w": np.zeros((count, 65)), "b": np.zeros(count)}
  mixing = topology.metropolis_hastings(topology.ring(count))
  return Clients(MODEL, LOSS, stacked, params, mixing)


def on_all(body: Any, *arguments: Any, backend: str = "vmap", axes: Any = 0):
  """Runs a body of one client for all; the results as NumPy arrays."""
  mapped = across(body, in_axes=axes, backend=backend, collective=True)
  return jax.device_get(jax.jit(mapped)(*arguments))


def assert_close(actual: Any, expected: Any, rtol: float) -> None:
  """Equal structures, with an error relative to the largest entry."""

  def check(a, b):
    scale = np.abs(b).max() or 1.0
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)

  jax.tree.map(check, actual, expected)
