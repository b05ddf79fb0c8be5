"""Corrections of all clients' models against dense systems and retraining."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree
from junlearn.clients import retraining
from junlearn.methods import decentralized_newton, newton
from junlearn.transform import Request, Result
from tests import softmax
from tests.clients.ring import (
  CASES,
  CLASSES,
  CONSENSUS,
  FEATURES,
  L2,
  LOCAL_STEPS,
  MODEL,
  STEP,
  Dense,
  as_params,
  mean_risk,
  present,
  rows,
  setting,
)

KEY = jax.random.key(0)


def make(case, **options):
  """The stage."""
  options = {"smoothness": case.head.values.smoothness, **options}
  return decentralized_newton.transform(MODEL, case.training, **options)


every_case = pytest.mark.parametrize("name", CASES)
every_consensus = pytest.mark.parametrize("name", CONSENSUS)


def compile_step(case, **options):
  """`(params, retain) -> result of one step`."""
  stage = make(case, num_steps=1, tolerance=1e-13, **options)

  def step(params, retain):
    return stage(KEY, params, Request(None, retain))._replace(request=None)

  return jax.jit(step)


@functools.cache  # one compiled program for all tests
def stacked_step(name):
  case = setting(**CASES[name])
  return case, compile_step(case)


@functools.cache
def consensus_step(name):
  case = setting(**CONSENSUS[name])
  return case, compile_step(case, form="consensus")


def repeated(step, params, retain, times=8):
  for _ in range(times):
    params = step(params, retain).params
  return rows(params)


@pytest.mark.usefixtures("x64")
@every_case
def test_one_step_is_a_dense_solve(name):
  case, step = stacked_step(name)
  X, retain = rows(case.params), case.request.retain
  result = step(case.params, retain)
  length = float(result.info.lengths[0])
  assert length > 0
  moved = length * Dense(case.training, retain).step(X)
  np.testing.assert_allclose(rows(result.params), X + moved, atol=1e-9)


@pytest.mark.usefixtures("x64")
@every_case
def test_steps_end_at_exact_retraining(name):
  case, step = stacked_step(name)
  retain = case.request.retain
  retrained = Dense(case.training, retain).fixed_point()
  reached = repeated(step, case.params, retain)
  np.testing.assert_allclose(reached, retrained, atol=1e-11)
  if "client" in name:
    np.testing.assert_allclose(reached[1], 0, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["records", "local steps, by sample"])
def test_error_of_one_step_is_of_second_order_in_what_is_removed(name):
  case, step = stacked_step(name)
  retain = case.request.retain
  kept, forgotten = (
    np.asarray(part["weight"], np.float64)
    for part in (retain, case.request.forget)
  )

  def without(share):
    weight = jnp.asarray(kept + (1 - share) * forgotten)
    return {**retain, "weight": weight}

  trained = Dense(case.training, without(0)).fixed_point()
  # A third of one client's few examples would be too much for a limit.
  shares = 2.0 ** -np.arange(3, 7)
  distances = []
  for share in shares:
    examples = without(share)
    corrected = rows(step(as_params(trained), examples).params)
    retrained = Dense(case.training, examples).fixed_point()
    distances.append(
      [np.linalg.norm(X - retrained) for X in (trained, corrected)]
    )
  slopes = np.polyfit(np.log(shares), np.log(distances), 1)[0]
  np.testing.assert_allclose(slopes, [1, 2], atol=0.1)


@pytest.mark.usefixtures("x64")
def test_damping_is_in_the_curvature_alone():
  case = setting()
  X, dense = rows(case.params), Dense(case.training, case.request.retain)
  after, jacobian = dense.round(X)
  matrix = (np.eye(len(jacobian)) - jacobian) / STEP
  gradient = (X - after).ravel() / STEP
  step = -np.linalg.solve(matrix + 0.7 * np.eye(len(matrix)), gradient)
  stage = make(case, num_steps=1, tolerance=1e-13, damping=0.7)
  result = jax.jit(stage)(KEY, case.params, case.request)
  length = float(result.info.lengths[0])
  assert length > 0
  moved = length * step.reshape(X.shape)
  np.testing.assert_allclose(rows(result.params), X + moved, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_stops_at_the_distance_asked_for_and_not_before():
  """With local steps; the releases of `retraining_test` stop without them.

  A client without examples moves slowest, and its bound is its distance.
  """
  case, _ = stacked_step("local steps, client")
  retrained = Dense(case.training, case.request.retain).fixed_point()
  stage = jax.jit(make(case, max_distance=0.01))
  bound = retraining.bound(
    MODEL, case.training, head=case.head, features="Given."
  )
  distance_of = jax.jit(bound.distance)
  for distance, enough in ((0.0099, True), (0.0101, False)):
    X = retrained.copy()
    X[1, 0] += distance
    np.testing.assert_allclose(
      distance_of(as_params(X), case.request), distance
    )
    result = stage(KEY, as_params(X), case.request)
    assert (result.info.steps == 0) == enough
    assert result.info.converged
    assert distance_of(result.params, case.request) <= 0.01


# Consensus.


@pytest.mark.usefixtures("x64")
@every_consensus
def test_consensus_is_a_dense_solve_from_the_mean(name):
  case, step = consensus_step(name)
  gradient, hessian = mean_risk(case, present(name))
  # What the client that left holds is not read.
  X = np.where(present(name)[:, None], rows(case.params), np.nan)
  mean = np.nanmean(X, 0)
  result = step(as_params(X), case.request.retain)
  length = float(result.info.lengths[0])
  assert length > 0
  expected = mean - length * np.linalg.solve(hessian(mean), gradient(mean))
  np.testing.assert_allclose(rows(result.params), [expected] * 4, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["client of as many", "client, by sample"])
def test_consensus_is_newtons_method_on_all_data_at_one_place(name):
  case, step = consensus_step(name)
  pooled = jax.tree.map(
    lambda x: x.reshape(-1, *x.shape[2:]), case.request.retain
  )
  mean = jax.tree.map(lambda x: x[present(name)].mean(0), case.params)
  stage = newton.transform(MODEL, l2=L2, num_steps=1, tolerance=1e-13)
  expected = jax.jit(stage)(KEY, mean, Request(None, pooled))
  result = step(case.params, case.request.retain)
  for name, one in expected.params.items():
    new = result.params[name]
    np.testing.assert_allclose(new, np.broadcast_to(one, new.shape), atol=1e-11)
  np.testing.assert_allclose(
    result.info.residuals, expected.info.residuals, atol=1e-12
  )


@pytest.mark.usefixtures("x64")
@every_consensus
def test_consensus_ends_at_the_minimum(name):
  case, step = consensus_step(name)
  risk = mean_risk(case, present(name))
  minimum = softmax.minimum(*risk, np.zeros(FEATURES * CLASSES))
  reached = repeated(step, case.params, case.request.retain)
  np.testing.assert_allclose(reached, [minimum] * 4, atol=1e-12)


# The laws of `battery_test.py`, for stacked clients.


def assert_close(actual, desired):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
    jax.device_get(actual),
    jax.device_get(desired),
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("count", "case", "options"),
  [
    (4, {"removed": 1}, {}),
    (8, {"local_steps": LOCAL_STEPS}, {}),
    (8, {"removed": 1, "weighting": "sample"}, {"form": "consensus"}),
  ],
)
def test_clients_on_one_device_or_many(count, case, options):
  case = setting(count, **case)
  one, many = (
    compile_step(case, backend=backend, **options)(
      case.params, case.request.retain
    )
    for backend in ("vmap", "pmap")
  )
  # Products of the solves may differ by one, at the limit of the precision.
  assert_close(many.params, one.params)
  assert_close(many.info.residuals, one.info.residuals)
  if options:
    for leaf in jax.tree.leaves(jax.device_get(many.params)):
      np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.usefixtures("x64")
def test_is_a_pure_transform():
  case, step = stacked_step("records")
  stage = make(case, num_steps=1, tolerance=1e-13)
  result = stage(KEY, case.params, case.request)
  assert isinstance(result, Result)
  assert result.request is case.request
  expected = step(case.params, case.request.retain)
  assert_close(result.params, expected.params)
  assert_close(result.info.residuals, expected.info.residuals)
  assert tree.all_finite(result.info)

  # Several requests at once, told by weights over the same examples.
  retain = case.request.retain
  weights = jnp.stack([retain["weight"], retain["weight"].at[2, 0].set(0)])

  def answer(weight):
    request = Request(None, {**retain, "weight": weight})
    return stage(jax.random.key(1), case.params, request).params

  both = jax.jit(jax.vmap(answer))(weights)
  assert_close(tree.take(both, 0), expected.params)
  other = step(case.params, {**retain, "weight": weights[1]})
  assert_close(tree.take(both, 1), other.params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["stacked", "consensus"])
@pytest.mark.parametrize("local_steps", [1, LOCAL_STEPS])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_keeps_the_precision_among_numpy_scalars(dtype, form, local_steps):
  case = setting(weighting="sample", local_steps=local_steps)
  wide = np.float64
  training = case.training._replace(step_size=wide(STEP), l2=wide(L2))
  case = case._replace(training=training)
  smoothness = wide(case.head.values.smoothness)
  stage = make(case, form=form, max_distance=wide(0.1), smoothness=smoothness)
  cast = functools.partial(
    jax.tree.map, lambda x: x.astype(dtype) if x.dtype == jnp.float64 else x
  )
  result = jax.eval_shape(stage, KEY, cast(case.params), cast(case.request))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), result.params) == {
    "bias": ((4, CLASSES), dtype),
    "kernel": ((4, FEATURES - 1, CLASSES), dtype),
  }


# What is refused.


@pytest.mark.parametrize(
  ("training", "options", "message"),
  [
    ({"l2": 0.0}, {}, r"l2 is 0\.0; it must be finite and above 0"),
    (
      {"step_size": 0.0},
      {},
      r"step_size is 0\.0; it must be finite and above 0",
    ),
    (
      {"step_size": -1.0},
      {"form": "consensus"},
      r"step_size is -1\.0; it must",
    ),
    ({"local_steps": 0}, {}, "local_steps is 0; it must be at least 1"),
    ({"weighting": "samples"}, {}, "weighting is 'samples'; it must be 'unif"),
    ({}, {"form": "dense"}, "form is 'dense'; it must be 'stacked' or 'cons"),
    (
      {},
      {"max_distance": -1.0},
      r"max_distance is -1\.0; it must be at least 0",
    ),
    ({}, {"max_distance": np.nan}, "max_distance is nan"),
    ({}, {"damping": -0.1}, r"damping is -0\.1; it must be at least 0"),
    ({}, {"num_steps": 0}, "num_steps is 0; it must be at least 1"),
    ({}, {"cg_steps": 0}, "cg_steps is 0; it must be at least 1"),
    (
      {},
      {"tolerance": 0.0},
      r"tolerance is 0\.0; it must be finite and above 0",
    ),
    ({}, {"curvature": "hesse"}, "curvature is 'hesse'; it must be"),
    ({}, {"backend": "map"}, "backend is 'map'"),
    ({"local_steps": 3}, {"smoothness": None}, "smoothness is None; 3 local"),
    ({"local_steps": 3}, {"damping": 0.1}, r"damping is 0\.1; with 3 local"),
    ({"local_steps": 3}, {"curvature": "fisher"}, "curvature is 'fisher' and"),
    ({"local_steps": 3, "step_size": 9.0}, {}, "contraction is .* be below 1"),
  ],
)
def test_bad_arguments(training, options, message):
  case = setting()
  case = case._replace(training=case.training._replace(**training))
  with pytest.raises(ValueError, match=message):
    make(case, **options)


@pytest.mark.parametrize("form", ["stacked", "consensus"])
def test_bad_requests(form):
  stage, case = make(setting(4), form=form), setting(8)
  with pytest.raises(ValueError, match="mixing has 4 rows; for 8 clients"):
    jax.eval_shape(stage, KEY, case.params, case.request)
  with pytest.raises(ValueError, match="no retain examples"):
    stage(KEY, case.params, case.request._replace(retain=None))
