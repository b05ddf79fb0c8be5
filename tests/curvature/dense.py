"""Curvature matrices written out, and small problems to write them out for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from junlearn import nn, tree
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from tests import problems

EXAMPLES = 12


@functools.cache
def convolutional():
  """A convolutional net of few params on the 4x4 digits."""
  problem = problems.digits()
  examples = {**problem.examples, "label": problem.examples["label"] % 4}
  model = from_linen(nn.CNN(4, features=(2,), hidden=3))
  return problem._replace(model=model, examples=examples, num_classes=4)


PROBLEMS = {
  "mlp": functools.partial(problems.blobs, hidden=3),
  "cnn": convolutional,
  "linear": problems.logistic,
}


def setup(name, dtype=np.float32, seed=0):
  """Model, random params, examples, and a vector, all of one dtype."""
  problem = PROBLEMS[name]()
  rng = np.random.default_rng(seed)
  abstract = jax.eval_shape(problem.init)
  params, v = (
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), dtype), abstract
    )
    for _ in range(2)
  )
  examples = tree.take(problem.examples, slice(EXAMPLES))
  examples["input"] = jnp.asarray(examples["input"], dtype)
  return problem.model, params, examples, v


def weighted(examples, seed=1):
  """Random weights, some of them 0."""
  rng = np.random.default_rng(seed)
  weight = rng.uniform(0, 3, EXAMPLES) * (rng.uniform(size=EXAMPLES) < 0.8)
  return {**examples, "weight": jnp.asarray(weight, examples["input"].dtype)}


def flat(vector):
  return np.asarray(ravel_pytree(vector)[0], np.float64)


@functools.cache
def each(name, problem, dtype=np.float32):
  """The matrix of every example `[n, params, params]`, by its definition."""
  model, params, examples, _ = setup(problem, dtype)
  start, unravel = ravel_pytree(params)

  def logits(x):
    return model.apply(unravel(x), examples["input"])[0]

  def losses(x):
    return cross_entropy(model)(unravel(x), examples)[0]

  if name == "hessian":
    return np.asarray(jax.jit(jax.hessian(losses))(start), np.float64)
  if name == "empirical_fisher":
    g = np.asarray(jax.jit(jax.jacobian(losses))(start), np.float64)
    return np.einsum("ni,nj->nij", g, g)
  # Labels one by one, as the Fisher matrix is defined.
  scores = jax.jit(jax.jacobian(lambda x: jax.nn.log_softmax(logits(x))))(start)
  g = np.asarray(scores, np.float64)
  p = np.asarray(jax.nn.softmax(logits(start)), np.float64)
  return np.einsum("ny,nyi,nyj->nij", p, g, g)


def matrix(name, problem, examples, *, damping=0.0):
  """The matrix of an operator at `setup`'s params, with the weights given."""
  matrices = each(name, problem, examples["input"].dtype.type)
  weight = np.asarray(examples.get("weight", np.ones(EXAMPLES)), np.float64)
  mean = np.einsum("n,nij->ij", weight, matrices) / max(weight.sum(), 1)
  return mean + damping * np.eye(len(mean))


def error(actual, desired):
  """Relative, of a pytree against a flat vector."""
  return np.linalg.norm(flat(actual) - desired) / np.linalg.norm(desired)
