"""Retraining against training from scratch, and against a convex optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from junlearn import objective, tree
from junlearn.data import select
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.methods import retrain
from junlearn.transform import Request, stage_key
from tests import problems

KEY = jax.random.key(3)
OPTIONS = {"num_steps": 7, "batch_size": 8}


def optimizer():
  return optax.sgd(0.1, momentum=0.9)


def test_is_training_from_a_fresh_start_on_the_retained():
  problem = problems.blobs()
  retain = problem.request.retain
  transform = retrain.transform(problem.model, optimizer(), **OPTIONS)
  retrained = jax.jit(transform)(KEY, problem.init(), problem.request)
  fresh = problem.model.init(stage_key(KEY, "initialize"), retain["input"])
  train = descend(
    objective.weighted(cross_entropy(problem.model), retain=1.0),
    optimizer(),
    **OPTIONS,
  )
  trained = jax.jit(train)(
    stage_key(KEY, "descend"), fresh, Request(None, retain)
  )
  assert tree.digest(retrained.params) == tree.digest(trained.params)


def test_reads_neither_the_params_nor_the_forgotten():
  problem = problems.blobs()
  transform = jax.jit(retrain.transform(problem.model, optimizer(), **OPTIONS))
  nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), problem.init())
  spoilt = {
    **problem.request.forget,
    "input": jnp.full_like(problem.request.forget["input"], jnp.nan),
  }
  results = [
    transform(KEY, problem.init(), problem.request),
    transform(KEY, nan, problem.request._replace(forget=spoilt)),
    transform(KEY, None, Request(None, problem.request.retain)),
  ]
  assert len({tree.digest(result.params) for result in results}) == 1


def test_absent_rows_are_not_read():
  """By weights over one array, the absent rows' values do not matter."""
  problem = problems.blobs()
  transform = jax.jit(retrain.transform(problem.model, optimizer(), **OPTIONS))
  forget = jnp.arange(tree.size(problem.examples)) < 10
  spoilt = {
    **problem.examples,
    "input": jnp.where(forget[:, None], 1e3, problem.examples["input"]),
  }
  digests = {
    tree.digest(transform(KEY, None, select.by_weight(examples, forget)).params)
    for examples in (problem.examples, spoilt)
  }
  assert len(digests) == 1


@pytest.mark.usefixtures("x64")
def test_full_batches_reach_the_convex_optimum():
  problem = problems.logistic()
  retain = problem.request.retain
  n, penalty = len(retain["label"]), 0.02

  def penalized(model):
    plain = cross_entropy(model)

    def loss(params, examples, key=None):
      losses, params = plain(params, examples, key)
      return losses + penalty / 2 * jnp.sum(params["kernel"] ** 2), params

    return loss

  result = jax.jit(
    retrain.transform(
      problem.model,
      optax.sgd(1.0, momentum=0.9),
      loss=penalized,
      num_steps=600,
      batch_size=n,
    )
  )(KEY, None, problem.request)
  oracle = LogisticRegression(C=1 / (penalty * n), tol=1e-12, max_iter=5000)
  oracle.fit(np.asarray(retain["input"]), np.asarray(retain["label"]))
  assert result.params["kernel"].dtype == jnp.float64
  np.testing.assert_allclose(
    result.params["kernel"], oracle.coef_.T, rtol=1e-5, atol=1e-6
  )
  # The bias is free up to a constant.
  bias = result.params["bias"] - result.params["bias"].mean()
  np.testing.assert_allclose(
    bias, oracle.intercept_ - oracle.intercept_.mean(), rtol=1e-5, atol=1e-6
  )


def test_inputs_may_be_any_pytree():
  """Of a model that reads two arrays, as of one that reads both in one."""
  problem = problems.blobs()

  def join(inputs):
    return jnp.concatenate([inputs["left"], inputs["right"]], axis=1)

  def halves(examples):
    x = examples["input"]
    return {**examples, "input": {"left": x[:, :2], "right": x[:, 2:]}}

  model = problem.model._replace(
    init=lambda key, inputs: problem.model.init(key, join(inputs)),
    apply=lambda params, inputs, key=None: problem.model.apply(
      params, join(inputs), key
    ),
  )
  request = problem.request
  parted = Request(None, halves(request.retain))
  whole, both = (
    retrain.transform(each, optimizer(), **OPTIONS)(KEY, None, asked).params
    for each, asked in ((problem.model, request), (model, parted))
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, both
  )
