"""Rounds against NumPy, dense optimization, and clients run one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from junlearn import descent, loop, objective
from junlearn.clients import data, gossip, rounds
from junlearn.methods import grad_difference
from junlearn.parallel.across import across
from junlearn.transform import Request, Result
from tests.clients.problem import (
  BACKENDS,
  COUNTS,
  assert_close,
  logistic,
  on_all,
)

L2 = 0.1
STEP = 0.5


def sigmoid(score):
  return 1 / (1 + np.exp(-score))


def client_risks(examples, w, b, weighting):
  """F_i and its gradients in w and b, example by example."""
  sizes = examples["weight"].sum(1)
  active, total = (sizes > 0).sum(), sizes.sum()
  values, in_w, in_b = [], [], []
  for i in range(len(w)):
    present = examples["weight"][i] > 0
    x, y = examples["input"][i][present], examples["label"][i][present]
    n = max(len(y), 1)
    scale = 1 if weighting == "uniform" else active * len(y) / total
    p = sigmoid(x @ w[i] + b[i])
    nll = -np.sum(np.log(np.where(y == 1, p, 1 - p)))
    square = np.sum(w[i] ** 2) + b[i] ** 2
    values.append(scale * nll / n + L2 / 2 * square)
    in_w.append(scale * (p - y) @ x / n + L2 * w[i])
    in_b.append(scale * np.sum(p - y) / n + L2 * b[i])
  return np.array(values), {"w": np.array(in_w), "b": np.array(in_b)}


def without_client(clients, client=1):
  return clients._replace(
    examples=data.request_by_client(clients.examples, client).retain
  )


@pytest.mark.parametrize("weighting", ["uniform", "sample"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_risk_and_gradient(weighting, backend, x64):
  clients = without_client(logistic(8, np.float64))
  risk = rounds.risk(clients.loss, l2=L2, weighting=weighting)
  value, gradient = on_all(
    jax.value_and_grad(risk),
    clients.params,
    clients.examples,
    backend=backend,
  )
  expected = client_risks(
    clients.examples, **clients.params, weighting=weighting
  )
  assert_close((value, gradient), expected, 1e-12)


def test_sample_weighting_is_the_mean_over_all_examples(x64):
  clients = without_client(logistic(8, np.float64))
  same = {"w": np.ones((8, 5)), "b": np.ones(8)}
  risk = rounds.risk(clients.loss, weighting="sample")
  values = on_all(risk, same, clients.examples)
  rows = clients.examples["weight"] > 0
  x, y = clients.examples["input"][rows], clients.examples["label"][rows]
  p = sigmoid(x.sum(1) + 1)
  # Seven clients have examples; the eighth's risk is its penalty, here 0.
  expected = -np.mean(np.log(np.where(y == 1, p, 1 - p)))
  assert values.sum() / 7 == pytest.approx(expected, rel=1e-12)


def gradient_descent(clients, form=gossip.ring, **options):
  risk = rounds.risk(clients.loss, l2=L2, **options)
  return rounds.gradient_descent(risk, form(clients.mixing), step_size=STEP)


def adapt_then_combine(clients, num_steps=5, form=gossip.ring):
  risk = rounds.risk(clients.loss, l2=L2)
  return rounds.adapt_then_combine(
    risk, form(clients.mixing), step_size=STEP, num_steps=num_steps
  )


@pytest.mark.parametrize("weighting", ["uniform", "sample"])
def test_a_round_of_gradient_descent(weighting, x64):
  clients = logistic(8, np.float64)
  result = on_all(
    gradient_descent(clients, weighting=weighting),
    clients.params,
    clients.examples,
  )
  _, gradient = client_risks(
    clients.examples, **clients.params, weighting=weighting
  )
  expected = {
    name: np.tensordot(clients.mixing, x, 1) - STEP * gradient[name]
    for name, x in clients.params.items()
  }
  assert_close(result, expected, 1e-12)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_round_of_adapt_then_combine(num_steps, x64):
  clients = logistic(8, np.float64)
  result = on_all(
    adapt_then_combine(clients, num_steps), clients.params, clients.examples
  )
  x = clients.params
  for _ in range(num_steps):
    _, gradient = client_risks(clients.examples, **x, weighting="uniform")
    x = {name: x[name] - STEP * gradient[name] for name in x}
  expected = {n: np.tensordot(clients.mixing, v, 1) for n, v in x.items()}
  assert_close(result, expected, 1e-12)


def test_gradient_descent_ends_at_the_minimiser_of_psi(x64):
  clients = without_client(logistic(8, np.float64))

  def psi(flat):
    x = flat.reshape(8, 6)
    values, gradient = client_risks(
      clients.examples, x[:, :5], x[:, 5], "uniform"
    )
    apart = x - clients.mixing @ x
    slope = np.hstack([gradient["w"], gradient["b"][:, None]])
    value = values.sum() + np.sum(x * apart) / (2 * STEP)
    return value, (slope + apart / STEP).ravel()

  best = optimize.minimize(
    psi, np.zeros(48), jac=True, method="BFGS", options={"gtol": 1e-10}
  ).x.reshape(8, 6)
  solve = rounds.to_fixed_point(
    gradient_descent(clients), tolerance=1e-12, max_rounds=10_000
  )
  params, info = on_all(solve, clients.params, clients.examples)
  assert (info.residual <= 1e-12).all()
  assert_close(np.hstack([params["w"], params["b"][:, None]]), best, 1e-8)


def test_the_residual_is_that_of_the_params_returned(x64):
  clients = logistic(8, np.float64)
  step = gradient_descent(clients)
  solve = rounds.to_fixed_point(step, tolerance=1e-3, max_rounds=1000)
  params, info = on_all(solve, clients.params, clients.examples)
  assert len(set(info.rounds.tolist())) == len(set(info.residual.tolist())) == 1
  assert 0 < info.rounds[0] < 1000

  def residual(params):
    following = on_all(step, params, clients.examples)
    return np.sqrt(sum(np.sum((params[n] - following[n]) ** 2) for n in params))

  assert info.residual[0] == pytest.approx(residual(params), rel=1e-9)
  assert info.residual[0] <= 1e-3
  rounds_before = rounds.iterate(step, num_rounds=int(info.rounds[0]) - 1)
  before = on_all(rounds_before, clients.params, clients.examples)
  assert residual(before) > 1e-3


def test_a_fixed_point_that_is_not_reached():
  clients = logistic(4)
  step = gradient_descent(clients)
  solve = rounds.to_fixed_point(step, tolerance=1e-9, max_rounds=3)
  params, info = on_all(solve, clients.params, clients.examples)
  assert (info.rounds == 3).all()
  assert (info.residual > 1e-9).all()
  expected = on_all(
    rounds.iterate(step, num_rounds=3), clients.params, clients.examples
  )
  assert_close(params, expected, 1e-6)
  broken = {**clients.params, "b": np.full(4, np.nan, np.float32)}
  _, info = on_all(solve, broken, clients.examples)
  assert (info.rounds == 0).all()
  assert np.isnan(info.residual).all()


def test_no_rounds_change_nothing():
  clients = logistic(4)
  nothing = rounds.iterate(gradient_descent(clients), num_rounds=0)
  result = on_all(nothing, clients.params, clients.examples)
  jax.tree.map(np.testing.assert_array_equal, result, clients.params)


@pytest.mark.parametrize("make", [loop.scan, loop.host])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rounds_are_a_descent_of_all_clients(make, backend):
  clients = logistic(4)
  step = gradient_descent(clients)
  run = descent.run(rounds.descent(step, num_rounds=3, backend=backend), make())
  result = run(
    jax.random.key(0), clients.params, Request(None, clients.examples)
  )
  params, residuals = clients.params, []
  for _ in range(3):
    following = on_all(step, params, clients.examples)
    moved = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), params, following)
    residuals.append(np.sqrt(moved["w"] + moved["b"]))
    params = following
  assert_close(jax.device_get(result.params), params, 1e-5)
  found = result.info["steps"]["residual"]
  np.testing.assert_allclose(found, residuals, rtol=1e-5)


LOCAL = {"num_steps": 3, "batch_size": 4}


@functools.cache
def local(loss):
  """Mini-batches and an optimizer that remembers."""
  return descent.descend(
    objective.weighted(loss, retain=1.0),
    optax.sgd(0.3, momentum=0.9),
    **LOCAL,
  )


def averaged(clients, key, params, examples, drawn, weights):
  """One round of FedAvg, client by client."""
  key = jax.random.split(key)[1]
  train = jax.jit(local(clients.loss))
  results = [
    train(
      jax.random.fold_in(key, i),
      jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params),
      Request(None, jax.tree.map(lambda x, i=i: x[i], examples)),
    ).params
    for i in drawn
  ]
  return jax.tree.map(
    lambda *rows: np.average(np.stack(rows), axis=0, weights=weights), *results
  )


def noisy(key, params, request):
  """A transform that compiles sooner, and draws too."""
  moved = jax.tree.map(
    lambda x: x + jax.random.normal(key, x.shape, x.dtype), params
  )
  return Result(moved, request, {})


def same_for_all(clients):
  return jax.tree.map(lambda x: np.broadcast_to(x[:1], x.shape), clients.params)


@pytest.mark.parametrize("weighting", ["sample", "uniform"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_federated_averaging(weighting, backend):
  clients = without_client(logistic(8), 2)
  params, key = same_for_all(clients), jax.random.key(3)
  step = rounds.federated_averaging(local(clients.loss), weighting=weighting)
  result = on_all(
    step,
    params,
    Request(None, clients.examples),
    key,
    backend=backend,
    axes=(0, 0, None),
  )
  drawn = [0, 1, 3, 4, 5, 6, 7]
  weights = clients.examples["weight"].sum(1)[drawn]
  expected = averaged(
    clients,
    key,
    params,
    clients.examples,
    drawn,
    weights if weighting == "sample" else None,
  )
  for i in range(8):
    assert_close(jax.tree.map(lambda x, i=i: x[i], result), expected, 1e-5)


@pytest.mark.parametrize(
  ("fraction", "number"), [(1.0, 6), (0.5, 3), (0.34, 2), (0.01, 1)]
)
def test_a_fraction_of_those_present_is_drawn(fraction, number):
  examples = {"weight": np.ones((8, 2), np.float32)}
  examples["weight"][[2, 5]] = 0
  request = Request(None, examples)

  def name(key, params, request):
    del key
    one = jax.nn.one_hot(params["i"], 8)
    return Result({"i": params["i"], "who": one}, request, {})

  step = across(
    rounds.federated_averaging(name, fraction=fraction, weighting="uniform"),
    in_axes=(0, 0, None),
    collective=True,
  )
  params = {"i": np.arange(8), "who": np.zeros((8, 8), np.float32)}
  keys = jax.random.split(jax.random.key(0), 60)
  result = jax.jit(jax.vmap(lambda key: step(params, request, key)))(keys)
  shares = np.asarray(result["who"])[:, 0]
  counts = (shares > 0).sum(1)
  np.testing.assert_array_equal(counts, number)
  np.testing.assert_allclose(shares[shares > 0], 1 / number, rtol=1e-6)
  assert set(np.flatnonzero(shares.any(0))) == {0, 1, 3, 4, 6, 7}


def test_rounds_have_their_own_keys():
  clients = logistic(4)
  params, key = same_for_all(clients), jax.random.key(0)
  request = Request(None, clients.examples)
  step = rounds.federated_averaging(noisy, fraction=0.5)
  run = functools.partial(on_all, axes=(0, 0, None))
  result = run(rounds.iterate(step, num_rounds=3), params, request, key)
  one = jax.jit(across(step, in_axes=(0, 0, None), collective=True))
  for k in range(3):
    params = one(params, request, jax.random.fold_in(key, k))
  assert_close(result, jax.device_get(params), 1e-6)
  with pytest.raises(ValueError, match="key is None"):
    on_all(step, params, request)


def test_any_transform_may_be_averaged():
  clients = logistic(4)
  request = data.request_by_id(clients.examples, [0, 10, 20, 30])
  forget = grad_difference.transform(
    clients.model, optax.sgd(0.5), alpha=0.5, num_steps=10, batch_size=4
  )
  step = rounds.iterate(rounds.federated_averaging(forget), num_rounds=3)
  params = same_for_all(clients)
  result = on_all(step, params, request, jax.random.key(0), axes=(0, 0, None))

  def mean(params, examples):
    losses = jax.vmap(lambda p, e: clients.loss(p, e)[0])(params, examples)
    return objective.mean(losses, examples)

  assert mean(result, request.forget) > mean(params, request.forget) + 0.1


def programs(clients, dtype):
  """Every kind of round, as bodies of (params, examples, key)."""
  tolerance = 1e-2 if dtype == np.float32 else 1e-9
  fixed = rounds.to_fixed_point(
    gradient_descent(clients, weighting="sample"),
    tolerance=tolerance,
    max_rounds=10_000,
  )
  fedavg = rounds.federated_averaging(noisy, fraction=0.5)
  return {
    "gradient_descent": rounds.iterate(
      gradient_descent(clients, form=gossip.dense), num_rounds=5
    ),
    "adapt_then_combine": rounds.iterate(
      adapt_then_combine(clients), num_rounds=5
    ),
    "fixed_point": lambda params, examples, key: fixed(params, examples),
    "fedavg": lambda params, examples, key: rounds.iterate(
      fedavg, num_rounds=2
    )(params, Request(None, examples), key),
  }


def assert_backends_agree(count, dtype, rtol):
  clients = logistic(count, dtype)

  def all_programs(params, examples, key):
    return {
      name: program(params, examples, key)
      for name, program in programs(clients, dtype).items()
    }

  on_one, on_many = (
    on_all(
      all_programs,
      clients.params,
      clients.examples,
      jax.random.key(1),
      backend=backend,
      axes=(0, 0, None),
    )
    for backend in BACKENDS
  )
  one, many = (
    result["fixed_point"][1]._asdict() for result in (on_one, on_many)
  )
  np.testing.assert_array_equal(one["rounds"], many["rounds"])
  # A difference of params, so as exact as these, which are of order 1.
  np.testing.assert_allclose(one["residual"], many["residual"], atol=rtol)
  for result in (on_one, on_many):
    result["fixed_point"] = result["fixed_point"][0]
  assert_close(on_many, on_one, rtol)


@pytest.mark.parametrize("count", COUNTS)
def test_backends_agree(count):
  assert_backends_agree(count, np.float32, 1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_backends_agree_in_double_precision(count, x64):
  assert_backends_agree(count, np.float64, 1e-12)


def test_dtypes_are_kept_whatever_the_constants(x64):
  clients = logistic(4, np.float32)
  risk = rounds.risk(clients.loss, l2=np.float64(L2), weighting="sample")
  mix = gossip.dense(clients.mixing)
  for step in (
    rounds.gradient_descent(risk, mix, step_size=np.float64(STEP)),
    rounds.adapt_then_combine(
      risk, mix, step_size=np.float64(STEP), num_steps=2
    ),
  ):
    result = on_all(step, clients.params, clients.examples)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(result))


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: rounds.risk(None, l2=-1.0), r"l2 is -1\.0"),
    (lambda: rounds.risk(None, weighting="client"), "weighting is 'client'"),
    (
      lambda: rounds.gradient_descent(None, None, step_size=0.0),
      r"step_size is 0\.0",
    ),
    (
      lambda: rounds.adapt_then_combine(None, None, step_size=1.0, num_steps=0),
      "num_steps is 0",
    ),
    (lambda: rounds.federated_averaging(None, fraction=0.0), "fraction is 0"),
    (
      lambda: rounds.federated_averaging(None, weighting="all"),
      "weighting is 'all'",
    ),
    (lambda: rounds.iterate(None, num_rounds=-1), "num_rounds is -1"),
    (
      lambda: rounds.to_fixed_point(None, tolerance=0.0, max_rounds=1),
      r"tolerance is 0\.0",
    ),
    (
      lambda: rounds.to_fixed_point(None, tolerance=1.0, max_rounds=0),
      "max_rounds is 0",
    ),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()
