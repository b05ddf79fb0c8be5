"""Fisher forgetting: the variance by hand, and the noise's scale."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from junlearn import curvature
from junlearn.methods import fisher_forget
from tests import problems

KEY = jax.random.key(0)


def test_variance_by_hand():
  fisher = {
    "hidden": jnp.array([[0.5, 0.0, 1.0], [0.25, 0.5, 1e-4]]),
    "bias": jnp.array([0.5, 0.0, 4.0]),
    "last": jnp.array([[0.5, 0.0], [0.5, 0.004], [2.0, 0.05]]),
  }
  var = fisher_forget.variance(
    fisher,
    alpha=1e-3,
    last_layer={"hidden": False, "bias": False, "last": True},
  )
  # 1/F: hidden [[2, 1e3, 1], [4, 2, 1e3]], averaged over inputs.
  hidden = [3e-3, 0.501, 0.5005]
  np.testing.assert_allclose(var["hidden"], [hidden, hidden], rtol=1e-5)
  np.testing.assert_allclose(var["bias"], [0.02, 10.0, 2.5e-3], rtol=1e-5)
  # 1/F: last [[2, 1e2], [2, 1e2], [0.5, 20]], averaged, tenfold.
  last = [0.015, 2.2 / 3]
  np.testing.assert_allclose(var["last"], [last] * 3, rtol=1e-5)


def test_kernels_of_convolutions_are_averaged_over_input_channels():
  fisher = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (3, 3, 4, 5)))
  var = fisher_forget.variance(fisher, alpha=1.0, last_layer=False)
  expected = np.mean(1 / np.asarray(fisher), axis=2, keepdims=True)
  np.testing.assert_allclose(
    var, np.broadcast_to(expected, fisher.shape), rtol=1e-5
  )


@functools.cache
def noise():
  """Standardized noise `[draws]` of a net with a wide hidden layer."""
  problem = problems.blobs(hidden=64)
  params = problem.init()
  alpha = 1e-4
  result = fisher_forget.transform(problem.model, alpha=alpha)(
    KEY, params, problem.request
  )
  fisher = curvature.diagonal_fisher(
    problem.model, params, problem.request.retain
  )
  last = jax.tree.map(lambda leaf: leaf.shape[-1] == 3, params)
  var = fisher_forget.variance(fisher, alpha=alpha, last_layer=last)
  z = jax.tree.map(
    lambda new, old, v: (new - old) / jnp.sqrt(v), result.params, params, var
  )
  np.testing.assert_allclose(
    result.info["noise"],
    np.linalg.norm(
      ravel_pytree(jax.tree.map(jnp.subtract, result.params, params))[0]
    ),
    rtol=1e-4,
  )
  return np.asarray(ravel_pytree(z)[0])


def test_noise_has_the_variance():
  z = noise()
  assert len(z) == 643
  assert scipy.stats.kstest(z, "norm").pvalue > 0.01


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_the_test_of_the_noise_rejects_other_scales(scale):
  assert scipy.stats.kstest(noise() * scale, "norm").pvalue < 0.01


def test_a_forgotten_class_is_drawn_afresh():
  """Its column of the last layer: mean 0, variance 1e-4."""
  problem = problems.blobs(hidden=64)
  params = jax.tree.map(lambda leaf: leaf + 5, problem.init())
  transform = fisher_forget.transform(problem.model, alpha=0.0, forget_class=1)
  columns = []
  for seed in range(16):
    result = transform(jax.random.key(seed), params, problem.request)
    layers = result.params["params"]
    for name in ("kernel", "bias"):
      before = params["params"]["Dense_1"][name]
      after = layers["Dense_1"][name]
      columns.append(np.ravel(after[..., 1]))
      np.testing.assert_array_equal(after[..., ::2], before[..., ::2])
    np.testing.assert_array_equal(
      layers["Dense_0"]["kernel"], params["params"]["Dense_0"]["kernel"]
    )
  z = np.concatenate(columns) / 1e-2
  assert scipy.stats.kstest(z, "norm").pvalue > 0.01
  assert scipy.stats.kstest(z * 1.25, "norm").pvalue < 0.01


def test_the_last_layer_can_be_named():
  """Where the width of the net is the number of classes."""
  problem = problems.blobs(hidden=3)
  by_shape, by_name = (
    fisher_forget.transform(problem.model, last_layer=pattern)(
      KEY, problem.init(), problem.request
    ).params["params"]
    for pattern in (None, "Dense_1")
  )
  before = problem.init()["params"]["Dense_0"]["kernel"]
  noise = [p["Dense_0"]["kernel"] - before for p in (by_shape, by_name)]
  assert np.linalg.norm(noise[0]) > 1.1 * np.linalg.norm(noise[1])
  np.testing.assert_allclose(
    by_shape["Dense_1"]["kernel"], by_name["Dense_1"]["kernel"], rtol=1e-6
  )


def test_refuses_a_last_layer_that_is_not_there():
  problem = problems.blobs()
  transform = fisher_forget.transform(problem.model, last_layer="head")
  with pytest.raises(ValueError, match="last_layer is 'head'"):
    transform(KEY, problem.init(), problem.request)


def test_needs_retained_examples():
  problem = problems.blobs()
  with pytest.raises(ValueError, match="no retain examples"):
    fisher_forget.transform(problem.model)(
      KEY, problem.init(), problem.request._replace(retain=None)
    )


@pytest.mark.parametrize(
  ("name", "value"),
  [("alpha", -1.0), ("alpha", float("nan")), ("forget_class", -1)],
)
def test_refuses_numbers_out_of_range(name, value):
  with pytest.raises(ValueError, match=re.escape(f"{name} is {value}")):
    fisher_forget.transform(problems.blobs().model, **{name: value})
