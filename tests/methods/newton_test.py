"""Newton corrections against dense solves and exact retraining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree, view
from junlearn.methods import newton
from junlearn.transform import Request
from tests import problems, softmax
from tests.regression import (
  L2,
  arrays,
  as_params,
  bound_of,
  flat,
  hessian,
  optimum,
  ridge,
  slope,
  squared,
  start,
)

KEY = jax.random.key(0)


def empirical_fisher(examples):
  x, y, weight = arrays(examples)

  def matrix(theta):
    g = softmax.each_gradient(theta, x, y)
    return (weight * g.T) @ g / weight.sum() + L2 * np.eye(len(theta))

  return matrix


def weighted(request, seed=3):
  """The request with weights on what is retained."""
  rng = np.random.default_rng(seed)
  weight = rng.uniform(0, 2, tree.size(request.retain))
  weight[::5] = 0
  retain = {**request.retain, "weight": jnp.asarray(weight)}
  return request._replace(retain=retain)


def run(problem, params, request, **options):
  stage = newton.transform(problem.model, **{"l2": L2, **options})
  return jax.jit(stage)(KEY, params, request)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("curvature", "matrix"),
  [
    ("hessian", hessian),
    ("gauss_newton", hessian),
    ("fisher", hessian),
    ("empirical_fisher", empirical_fisher),
  ],
)
def test_one_step_is_a_dense_solve(curvature, matrix):
  problem = problems.logistic()
  request, params = weighted(problem.request), start(problem)
  theta = flat(params)
  step = -np.linalg.solve(
    matrix(request.retain)(theta) + 0.3 * np.eye(len(theta)),
    slope(request.retain)(theta),
  )
  result = run(
    problem, params, request,
    num_steps=1, curvature=curvature, damping=0.3, tolerance=1e-13,
    batch_size=7,
  )  # fmt: skip
  length = float(result.info.lengths[0])
  assert length > 0
  np.testing.assert_allclose(
    flat(result.params), theta + length * step, atol=1e-11
  )


@pytest.mark.usefixtures("x64")
def test_reaches_exact_retraining():
  problem = problems.logistic()
  trained = as_params(optimum(problem.examples), problem.init())
  retrained = optimum(problem.request.retain)
  assert np.linalg.norm(flat(trained) - retrained) > 0.1
  result = run(problem, trained, problem.request)
  np.testing.assert_allclose(flat(result.params), retrained, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_one_step_solves_ridge_regression():
  problem = problems.logistic()
  for curvature in ("hessian", "gauss_newton"):
    result = run(
      problem, start(problem), weighted(problem.request),
      num_steps=1, curvature=curvature, tolerance=1e-13, output_loss=squared,
    )  # fmt: skip
    expected = ridge(weighted(problem.request).retain)
    np.testing.assert_allclose(flat(result.params), expected, 1e-10)


@pytest.mark.usefixtures("x64")
def test_error_of_one_step_is_of_second_order_in_what_is_removed():
  problem = problems.logistic()
  forget = np.isin(problem.examples["id"], problem.request.forget["id"])
  trained = as_params(optimum(problem.examples), problem.init())
  stage = jax.jit(
    newton.transform(problem.model, l2=L2, num_steps=1, tolerance=1e-12)
  )
  shares = 2.0 ** -np.arange(5)
  distances = []
  for share in shares:
    weight = jnp.asarray(1 - share * forget)
    retain = {**problem.examples, "weight": weight}
    corrected = stage(KEY, trained, Request(None, retain)).params
    retrained = optimum(retain)
    distances.append(
      [np.linalg.norm(flat(p) - retrained) for p in (trained, corrected)]
    )
  slopes = np.polyfit(np.log(shares), np.log(distances), 1)[0]
  np.testing.assert_allclose(slopes, [1, 2], atol=0.3)


@pytest.mark.usefixtures("x64")
def test_stops_at_the_distance_asked_for():
  problem = problems.logistic()
  retrained = optimum(problem.request.retain)
  result = run(problem, start(problem), problem.request, max_distance=0.01)
  distance = bound_of(problem).measured(result.params, problem.request).result
  assert result.info.converged
  assert result.info.steps < 10
  assert 1e-8 < np.linalg.norm(flat(result.params) - retrained) <= distance
  assert distance <= 0.01
  np.testing.assert_allclose(distance, result.info.residual / L2, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_bound_holds_for_any_params():
  problem = problems.logistic()
  request = weighted(problem.request)
  retrained = optimum(request.retain)
  bound = jax.jit(bound_of(problem).distance)
  for seed in range(20):
    params = jax.tree.map(
      lambda leaf, s=seed: leaf * 10.0 ** (s % 5 - 3), start(problem, seed)
    )
    theta = retrained + flat(params)
    distance = bound(as_params(theta, params), request)
    gradient = np.linalg.norm(slope(request.retain)(theta))
    np.testing.assert_allclose(distance, gradient / L2, rtol=1e-10, atol=1e-9)
    assert np.linalg.norm(flat(params)) <= distance


def masks(problem):
  """The kernel is free; and all but a few entries."""
  init = problem.init()
  rng = np.random.default_rng(5)
  entries = jax.tree.map(lambda leaf: rng.random(leaf.shape) < 0.6, init)
  kernel = {
    "bias": np.zeros(init["bias"].shape, bool),
    "kernel": np.ones(init["kernel"].shape, bool),
  }
  return {
    "only": (view.only("kernel"), kernel),
    "where": (view.where(entries), entries),
  }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["only", "where"])
def test_a_view_leaves_the_rest_and_the_free_part_converges(kind):
  problem = problems.logistic()
  lens, mask = masks(problem)[kind]
  params, free = start(problem), flat(mask)
  theta, part = flat(params), np.ix_(free, free)

  def whole(values):
    theta = flat(params).copy()
    theta[free] = values
    return theta

  retain = problem.request.retain
  expected = softmax.minimum(
    lambda v: slope(retain)(whole(v))[free],
    lambda v: hessian(retain)(whole(v))[part],
    np.zeros(free.sum()),
  )
  result = run(problem, params, problem.request, view=lens)
  np.testing.assert_array_equal(flat(result.params)[~free], theta[~free])
  np.testing.assert_allclose(flat(result.params)[free], expected, atol=1e-12)

  bound = bound_of(problem, view=lens)
  for where in (params, result.params):
    apart = np.linalg.norm(flat(where)[free] - expected)
    gradient = slope(retain)(flat(where))[free]
    distance = bound.measured(where, problem.request).result
    np.testing.assert_allclose(
      distance, np.linalg.norm(gradient) / L2, atol=1e-10
    )
    assert apart <= distance


def test_state_stays_as_it_is():
  problem = problems.normalized()
  params = problem.init()
  params["batch_stats"] = jax.tree.map(lambda x: x + 0.5, params["batch_stats"])
  result = run(
    problem, params, problem.request,
    curvature="gauss_newton", damping=0.1, num_steps=2,
  )  # fmt: skip
  assert tree.digest(result.params["batch_stats"]) == tree.digest(
    params["batch_stats"]
  )
  assert result.info.steps == 2
  moved = jax.tree.map(
    lambda new, old: bool((new != old).any()),
    result.params["params"],
    params["params"],
  )
  assert all(jax.tree.leaves(moved))


@pytest.mark.usefixtures("x64")
def test_keeps_single_precision_among_numpy_scalars():
  problem = problems.blobs(hidden=3)
  wide = np.float64
  stage = newton.transform(
    problem.model, l2=wide(L2), damping=wide(0.1), max_distance=wide(0.5)
  )
  result = jax.eval_shape(stage, KEY, problem.init(), problem.request)
  for leaf in jax.tree.leaves(result.params):
    assert leaf.dtype == jnp.float32


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"l2": 0.0}, r"l2 is 0\.0; it must be finite and above 0"),
    ({"l2": float("nan")}, "l2 is nan"),
    ({"max_distance": -1.0}, r"max_distance is -1\.0; it must be at least 0"),
    ({"max_distance": float("nan")}, "max_distance is nan"),
    ({"damping": -0.1}, r"damping is -0\.1; it must be at least 0"),
    ({"num_steps": 0}, "num_steps is 0; it must be at least 1"),
    ({"cg_steps": 0}, "cg_steps is 0; it must be at least 1"),
    ({"tolerance": 0.0}, r"tolerance is 0\.0; it must be finite and above 0"),
    ({"curvature": "hesse"}, "curvature is 'hesse'; it must be 'hes"),
  ],
)
def test_bad_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    newton.transform(problems.blobs().model, **{"l2": L2, **options})


def test_a_correction_needs_what_to_retain():
  problem = problems.blobs()
  request = problem.request._replace(retain=None)
  with pytest.raises(ValueError, match="no retain examples"):
    newton.transform(problem.model, l2=L2)(KEY, problem.init(), request)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"l2": -1}, "l2 is -1; it must be finite and above 0"),
    ({"l2": float("nan")}, "l2 is nan"),
    ({"retrain_error": -1}, "retrain_error is -1; it must be at least 0"),
    ({"retrain_error": float("nan")}, "retrain_error is nan"),
    ({"features": ""}, "features is ''; it must say, in a sentence"),
  ],
)
def test_bad_bounds(options, message):
  with pytest.raises(ValueError, match=message):
    bound_of(problems.blobs(), **options)
