"""Corrections of all clients' models against dense systems and retraining."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree
from junlearn.certify import certified, constants, noise
from junlearn.clients import data, topology
from junlearn.clients.training import Training
from junlearn.methods import decentralized_newton, newton
from junlearn.model import from_function
from junlearn.transform import Request, Result
from tests import softmax

KEY = jax.random.key(0)
L2, STEP, FEATURES, CLASSES = 0.05, 0.3, 4, 3
MODEL = from_function(
  lambda params, inputs: inputs @ params["kernel"] + params["bias"]
)
LOCAL_STEPS = 3


class Setting(NamedTuple):
  """Clients of unequal size on a ring, and what one of them must forget."""

  training: Training
  request: Request
  params: dict[str, Any]
  smoothness: float


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
    request = data.by_id(examples, [100, 101])
    mixing = topology.metropolis_hastings(adjacency)
  else:
    request = data.by_client(examples, removed)
    mixing = topology.remove(adjacency, removed)
  params = {
    "bias": rng.normal(size=(count, CLASSES)),
    "kernel": rng.normal(size=(count, FEATURES - 1, CLASSES)),
  }
  known = constants.softmax(
    input_norm=np.sqrt(1.5),
    l2=L2,
    num_classes=CLASSES,
    scale=2.0 if weighting == "sample" else 1.0,
  )
  training = Training(mixing, STEP, L2, local_steps, weighting)
  to_jax = functools.partial(jax.tree.map, jnp.asarray)
  return Setting(training, to_jax(request), to_jax(params), known.smoothness)


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


def make(case, **options):
  """The stage and the bound."""
  options = {"smoothness": case.smoothness, **options}
  shared = ("form", "smoothness", "backend")
  return (
    decentralized_newton.transform(MODEL, case.training, **options),
    decentralized_newton.bound(
      MODEL, case.training, **{k: options[k] for k in shared if k in options}
    ),
  )


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
every_case = pytest.mark.parametrize("name", CASES)
every_consensus = pytest.mark.parametrize("name", CONSENSUS)


def compile_step(case, **options):
  """`(params, retain) -> (result of one step, bound of the params given)`."""
  stage, measure = make(case, num_steps=1, tolerance=1e-13, **options)

  def step(params, retain):
    request = Request(None, retain)
    result = stage(KEY, params, request)._replace(request=None)
    return result, measure(params, request)

  return jax.jit(step)


@functools.cache  # one compiled program for all tests
def stacked_step(name):
  case = setting(**CASES[name])
  return case, compile_step(case)


@functools.cache
def consensus_step(name):
  case = setting(**CONSENSUS[name])
  return case, compile_step(case, form="consensus")


def as_params(X):
  X = jnp.asarray(X).reshape(len(X), FEATURES, CLASSES)
  return {"bias": X[:, 0], "kernel": X[:, 1:]}


def repeated(step, params, retain, times=8):
  for _ in range(times):
    params = step(params, retain)[0].params
  return rows(params)


@pytest.mark.usefixtures("x64")
@every_case
def test_one_step_is_a_dense_solve(name):
  case, step = stacked_step(name)
  X, retain = rows(case.params), case.request.retain
  result, _ = step(case.params, retain)
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
@every_case
def test_bound_is_at_least_the_distance_to_retraining(name):
  case, step = stacked_step(name)
  retain = case.request.retain
  dense = Dense(case.training, retain)
  retrained = dense.fixed_point()
  rng = np.random.default_rng(1)
  for size in (1e-6, 1e-3, 0.1, 1, 10):
    X = retrained + size * rng.normal(size=retrained.shape)
    distance = float(step(as_params(X), retain)[1])
    residual = np.linalg.norm(X - dense.round(X)[0])
    if dense.local_steps == 1:
      expected = residual / (STEP * L2)
    else:
      expected = residual / (1 - (1 - STEP * L2) ** LOCAL_STEPS)
    np.testing.assert_allclose(distance, expected, rtol=1e-8)
    assert np.linalg.norm(X - retrained) <= distance < np.inf


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
    corrected = rows(step(as_params(trained), examples)[0].params)
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
  stage, _ = make(case, num_steps=1, tolerance=1e-13, damping=0.7)
  result = jax.jit(stage)(KEY, case.params, case.request)
  length = float(result.info.lengths[0])
  assert length > 0
  moved = length * step.reshape(X.shape)
  np.testing.assert_allclose(rows(result.params), X + moved, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_stops_at_the_distance_asked_for_and_not_before():
  """With local steps; the certified releases below stop without them.

  A client without examples moves slowest, and its bound is its distance.
  """
  case, step = stacked_step("local steps, client")
  retain = case.request.retain
  retrained = Dense(case.training, retain).fixed_point()
  stage = jax.jit(make(case, max_distance=0.01)[0])
  for distance, enough in ((0.0099, True), (0.0101, False)):
    X = retrained.copy()
    X[1, 0] += distance
    np.testing.assert_allclose(step(as_params(X), retain)[1], distance)
    result = stage(KEY, as_params(X), case.request)
    assert (result.info.steps == 0) == enough
    assert result.info.converged
    assert step(result.params, retain)[1] <= 0.01


# Consensus.


def present(name):
  return np.arange(4) != CONSENSUS[name].get("removed")


def mean_risk(name):
  """(1/N) sum_i F_i over the clients that have not left: its derivatives."""
  case, _ = consensus_step(name)
  dense, here = Dense(case.training, case.request.retain), present(name)

  def gradient(theta):
    return dense.gradient(np.tile(theta, (4, 1)))[here].mean(0)

  def hessian(theta):
    return np.stack(dense.hessians(np.tile(theta, (4, 1))))[here].mean(0)

  return gradient, hessian


@pytest.mark.usefixtures("x64")
@every_consensus
def test_consensus_is_a_dense_solve_from_the_mean(name):
  case, step = consensus_step(name)
  gradient, hessian = mean_risk(name)
  # What the client that left holds is not read.
  X = np.where(present(name)[:, None], rows(case.params), np.nan)
  mean = np.nanmean(X, 0)
  result, _ = step(as_params(X), case.request.retain)
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
  result, _ = step(case.params, case.request.retain)
  for name, one in expected.params.items():
    new = result.params[name]
    np.testing.assert_allclose(new, np.broadcast_to(one, new.shape), atol=1e-11)
  np.testing.assert_allclose(
    result.info.residuals, expected.info.residuals, atol=1e-12
  )


@pytest.mark.usefixtures("x64")
@every_consensus
def test_consensus_ends_at_the_minimum_and_its_bound_holds(name):
  case, step = consensus_step(name)
  retain = case.request.retain
  gradient, hessian = mean_risk(name)
  minimum = softmax.minimum(gradient, hessian, np.zeros(FEATURES * CLASSES))
  reached = repeated(step, case.params, retain)
  np.testing.assert_allclose(reached, [minimum] * 4, atol=1e-12)
  rng = np.random.default_rng(2)
  for size in (1e-6, 1e-2, 1, 100):
    offset = size * rng.normal(size=minimum.shape)
    params = as_params(np.tile(minimum + offset, (4, 1)))
    distance = float(step(params, retain)[1])
    norm = np.linalg.norm(gradient(minimum + offset))
    np.testing.assert_allclose(distance, norm / L2, rtol=1e-8)
    assert np.linalg.norm(offset) <= distance < np.inf


@pytest.mark.usefixtures("x64")
def test_consensus_of_rows_that_differ_has_no_bound():
  """However little: noise shared by the rows leaves their differences."""
  case, step = consensus_step("client, by sample")
  retain = case.request.retain
  X = np.tile(rows(case.params)[0], (4, 1))
  X[:, 5] = 0
  assert np.isfinite(step(as_params(X), retain)[1])
  for row, value in ((0, 1e-200), (1, 1e-200), (3, np.nan)):
    other = X.copy()
    other[row, 5] = value
    assert step(as_params(other), retain)[1] == np.inf


# Releases.


def release(case, form, max_distance=1e-3, **options):
  stage, bound = make(case, form=form, max_distance=max_distance, **options)
  return certified(
    stage,
    bound,
    epsilon=1.0,
    delta=1e-5,
    max_distance=max_distance,
    noise=noise.shared if form == "consensus" else noise.independent,
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["stacked", "consensus"])
def test_certified_release(form):
  name = "client, by sample"
  case = setting(**CASES[name])
  result = jax.jit(release(case, form))(KEY, case.params, case.request)
  assert result.info["certified"]
  assert result.info["stage"].converged
  assert 1e-10 < result.info["distance"] <= 1e-3
  released = rows(result.params)
  if form == "consensus":
    np.testing.assert_array_equal(released, released[[0] * 4])
    retrained = softmax.minimum(*mean_risk(name), released[0])
  else:
    retrained = Dense(case.training, case.request.retain).fixed_point()
  added = np.abs(released - retrained)
  assert 0 < added.max() < 5 * result.info["sigma"] + 1e-3


@pytest.mark.usefixtures("x64")
def test_nothing_is_released_beyond_the_distance():
  case = setting()
  short = release(case, "stacked", max_distance=1e-14, num_steps=1)
  result = jax.jit(short)(KEY, case.params, case.request)
  assert not result.info["certified"]
  assert np.isnan(rows(result.params)).all()


def test_certified_release_refuses_single_precision():
  case = setting()
  with pytest.raises(ValueError, match="float32"):
    release(case, "stacked")(KEY, case.params, case.request)


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
  (result, distance), (expected, expected_distance) = many, one
  assert_close(result.params, expected.params)
  assert_close(result.info.residuals, expected.info.residuals)
  assert_close(distance, expected_distance)
  if options:
    for leaf in jax.tree.leaves(jax.device_get(result.params)):
      np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.usefixtures("x64")
def test_is_a_pure_transform():
  case, step = stacked_step("records")
  stage, _ = make(case, num_steps=1, tolerance=1e-13)
  result = stage(KEY, case.params, case.request)
  assert isinstance(result, Result)
  assert result.request is case.request
  expected, _ = step(case.params, case.request.retain)
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
  other, _ = step(case.params, {**retain, "weight": weights[1]})
  assert_close(tree.take(both, 1), other.params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["stacked", "consensus"])
@pytest.mark.parametrize("local_steps", [1, LOCAL_STEPS])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_keeps_the_precision_among_numpy_scalars(dtype, form, local_steps):
  case = setting(weighting="sample", local_steps=local_steps)
  wide = np.float64
  training = case.training._replace(step_size=wide(STEP), l2=wide(L2))
  case = case._replace(training=training, smoothness=wide(case.smoothness))
  stage, _ = make(case, form=form, max_distance=wide(0.1))
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
    ({"l2": 0.0}, {}, "l2 is 0.0; it must be above 0"),
    ({"step_size": 0.0}, {}, "step_size is 0.0; it must be above 0"),
    ({"step_size": -1.0}, {"form": "consensus"}, "step_size is -1.0; it must"),
    ({"local_steps": 0}, {}, "local_steps is 0; it must be at least 1"),
    ({"weighting": "samples"}, {}, "weighting is 'samples'; it must be 'unif"),
    ({}, {"form": "dense"}, "form is 'dense'; it must be 'stacked' or 'cons"),
    ({}, {"max_distance": -1.0}, "max_distance is -1.0; it must be at least 0"),
    ({}, {"max_distance": np.nan}, "max_distance is nan"),
    ({}, {"damping": -0.1}, "damping is -0.1; it must be at least 0"),
    ({}, {"num_steps": 0}, "num_steps is 0; it must be at least 1"),
    ({}, {"cg_steps": 0}, "cg_steps is 0; it must be at least 1"),
    ({}, {"tolerance": 0.0}, "tolerance is 0.0; it must be above 0"),
    ({}, {"curvature": "hesse"}, "curvature is 'hesse'; it must be one of"),
    ({}, {"backend": "map"}, "backend is 'map'"),
    ({"local_steps": 3}, {"smoothness": None}, "smoothness is None; 3 local"),
    ({"local_steps": 3}, {"damping": 0.1}, "damping is 0.1; with 3 local"),
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
  stage, bound = make(setting(4), form=form)
  case = setting(8)
  for apply in (functools.partial(stage, KEY), bound):
    with pytest.raises(ValueError, match="mixing has 4 rows; for 8 clients"):
      jax.eval_shape(apply, case.params, case.request)
    with pytest.raises(ValueError, match="no retain examples"):
      apply(case.params, case.request._replace(retain=None))
