"""Softmax regression of the blobs of `problems.logistic`, trained exactly."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from junlearn.methods import newton
from tests import softmax

L2 = 0.05


def flat(params):
  return np.asarray(ravel_pytree(params)[0])


def start(problem, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), problem.init()
  )


def arrays(examples):
  """Inputs with a constant 1 before them, labels and weights."""
  x = np.asarray(examples["input"])
  x = np.hstack([np.ones((len(x), 1)), x])
  weight = np.asarray(examples.get("weight", np.ones(len(x))))
  return x, np.asarray(examples["label"]), weight


def slope(examples):
  x, y, weight = arrays(examples)
  return lambda theta: softmax.gradient(theta, x, y, weight, L2)


def hessian(examples):
  x, _, weight = arrays(examples)
  return lambda theta: softmax.hessian(theta, x, weight, L2)


def optimum(examples):
  """Exact training."""
  features, classes = arrays(examples)[0].shape[1], 3
  return softmax.minimum(
    slope(examples), hessian(examples), np.zeros(features * classes)
  )


def as_params(theta, like):
  return ravel_pytree(like)[1](jnp.asarray(theta))


def squared(outputs, examples):
  target = jax.nn.one_hot(examples["label"], 3)
  return jnp.sum(jnp.square(outputs - target), 1) / 2


def ridge(examples):
  """Exact training with the squared loss."""
  x, y, weight = arrays(examples)
  scaled = weight / weight.sum()
  system = (scaled * x.T) @ x + L2 * np.eye(x.shape[1])
  return np.linalg.solve(system, (scaled * x.T) @ np.eye(3)[y]).ravel()


def bound_of(problem, **options):
  settings = {"l2": L2, "features": "Points of blobs, given.", **options}
  return newton.bound(problem.model, **settings)
