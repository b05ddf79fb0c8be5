"""Influence against two real runs: with the examples, and without."""

import functools

import jax
import numpy as np
import optax
import pytest

from junlearn.clients import data, gossip, influence, rounds, topology
from junlearn.parallel.across import across
from tests.clients.problem import (
  BACKENDS,
  COUNTS,
  assert_close,
  digits,
  logistic,
  on_all,
)

NUM_ROUNDS = 40


def norm(x):
  return np.sqrt(sum(np.sum(np.square(v)) for v in jax.tree.leaves(x)))


def difference(a, b):
  return jax.tree.map(np.subtract, a, b)


def relative_error(estimate, true):
  return norm(difference(estimate, true)) / norm(true)


def round_on(clients, mixing=None, local_steps=1, l2=0.01, step_size=1.0):
  """DSGD, or local steps and then gossip."""
  mix = gossip.dense(clients.mixing if mixing is None else mixing)
  risk = rounds.risk(clients.loss, l2=l2)
  if local_steps == 1:
    return rounds.gradient_descent(risk, mix, step_size=step_size)
  return rounds.adapt_then_combine(
    risk, mix, step_size=step_size, num_steps=local_steps
  )


def compiled(before, after, mix=lambda x: x):
  """Training, what the deletion does to it, and two estimates of that."""
  run = functools.partial(rounds.iterate, num_rounds=NUM_ROUNDS)
  propagate = functools.partial(
    influence.propagate, before, after, num_rounds=NUM_ROUNDS
  )

  def body(params, examples, retain):
    trained = run(before)(params, examples)
    true = optax.tree.sub(run(after)(params, retain), trained)
    exact = propagate()(params, examples, retain)
    gossiped = propagate(mix=mix)(params, examples, retain)
    return trained, true, exact, gossiped

  return jax.jit(across(body, collective=True))


def compare(clients, before, after, retain, **options):
  return jax.device_get(
    compiled(before, after, **options)(clients.params, clients.examples, retain)
  )


@pytest.mark.parametrize("local_steps", [1, 3])
@pytest.mark.parametrize(("how", "bound"), [("iid", 0.01), ("sorted", 0.05)])
def test_influence_is_that_of_two_runs(how, bound, local_steps, x64):
  clients = digits(how)
  ids = clients.examples["id"][3][:8]
  retain = data.request_by_id(clients.examples, ids).retain
  step = round_on(clients, local_steps=local_steps)
  trained, true, (params, exact), (_, gossiped) = compare(
    clients, step, step, retain, mix=gossip.dense(clients.mixing)
  )
  assert_close(params, trained, 1e-10)
  error = relative_error(exact.value, true)
  assert error < bound
  # Powers of the mixing matrix alone do not predict it.
  assert relative_error(gossiped.value, true) >= 10 * error


def test_a_client_that_leaves(x64):
  clients = digits("sorted")
  mixing = topology.remove(topology.ring(8), 2)
  retain = data.request_by_client(clients.examples, 2).retain
  before, after = round_on(clients), round_on(clients, mixing)
  _, true, (_, exact), _ = compare(clients, before, after, retain)
  # An eighth of all examples is no small deletion.
  assert relative_error(exact.value, true) < 0.05


def test_a_small_deletion_has_a_second_order_error(x64):
  clients = digits("sorted")
  step = round_on(clients)

  mapped = compiled(step, step)
  errors = []
  for part in (0.5, 0.25, 0.125):
    weight = clients.examples["weight"].astype(np.float64)
    weight[3, :20] *= 1 - part
    retain = {**clients.examples, "weight": weight}
    _, true, (_, exact), _ = jax.device_get(
      mapped(clients.params, clients.examples, retain)
    )
    errors.append(norm(difference(exact.value, true)))
  slopes = np.diff(np.log2(errors))
  np.testing.assert_allclose(slopes, -2, atol=0.1)


def _quadratic(params, examples, key=None):
  del key
  return (examples["input"] @ params - examples["label"]) ** 2 / 2, params


def test_influence_is_exact_for_least_squares(x64):
  clients = logistic(8, np.float64)
  labels = clients.examples["label"].astype(np.float64)
  clients = clients._replace(
    loss=_quadratic,
    examples={**clients.examples, "label": labels},
    params=clients.params["w"],
  )
  retain = data.request_by_id(clients.examples, [0, 1]).retain
  step = round_on(clients, step_size=0.1)
  _, true, (_, exact), _ = compare(clients, step, step, retain)
  assert_close(exact.value, true, 1e-9)


def test_influence_spreads_one_neighbor_a_round(x64):
  clients = logistic(8, np.float64)
  retain = data.request_by_id(clients.examples, [20]).retain  # held by client 2
  step = round_on(clients)
  body = influence.propagate(step, step, num_rounds=NUM_ROUNDS)
  _, found = on_all(body, clients.params, clients.examples, retain)
  assert found.norm.shape == (8, NUM_ROUNDS)
  distance = np.minimum((np.arange(8) - 2) % 8, (2 - np.arange(8)) % 8)
  for k in range(NUM_ROUNDS):
    np.testing.assert_array_equal(found.norm[:, k] > 0, distance <= k)
  last = jax.tree.map(np.square, found.value)
  own = np.sqrt(last["w"].sum(1) + last["b"])
  np.testing.assert_allclose(found.norm[:, -1], own)


def test_nothing_deleted_has_no_influence():
  clients = logistic(4)
  step = round_on(clients)
  body = influence.propagate(step, step, num_rounds=NUM_ROUNDS)
  _, found = on_all(body, clients.params, clients.examples, clients.examples)
  assert norm(found.value) == 0


def test_influence_of_drawn_batches_uses_the_same_draws(x64):
  clients = logistic(4, np.float64)
  retain = data.request_by_id(clients.examples, [0]).retain
  quiet = round_on(clients)

  def noisy(params, examples, key):
    moved = quiet(params, examples)
    noise = jax.random.normal(key, params["b"].shape)
    return {**moved, "b": moved["b"] + noise}

  run = functools.partial(on_all, axes=(0, 0, None))
  iterated = rounds.iterate(noisy, num_rounds=5)
  key = jax.random.key(0)
  with_it = run(iterated, clients.params, clients.examples, key)
  without = run(iterated, clients.params, retain, key)
  body = influence.propagate(noisy, noisy, num_rounds=5)
  params, found = on_all(
    body, clients.params, clients.examples, retain, key, axes=(0, 0, 0, None)
  )
  assert_close(params, with_it, 1e-12)
  assert relative_error(found.value, difference(without, with_it)) < 0.1


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
  ("dtype", "rtol"), [(np.float32, 1e-5), (np.float64, 1e-12)]
)
def test_backends_agree(count, dtype, rtol):
  with jax.enable_x64(dtype == np.float64):
    clients = logistic(count, dtype)
    retain = data.request_by_id(clients.examples, [1, 11]).retain
    step = round_on(clients, step_size=0.5)
    body = influence.propagate(step, step, num_rounds=6)
    on_one, on_many = (
      on_all(body, clients.params, clients.examples, retain, backend=backend)
      for backend in BACKENDS
    )
  assert_close(on_many, on_one, rtol)


def test_rounds_are_counted_from_zero():
  with pytest.raises(ValueError, match="num_rounds is -1"):
    influence.propagate(None, None, num_rounds=-1)
