"""Mixing against matrix powers; every backend gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.clients import gossip, topology
from tests.clients.problem import BACKENDS, COUNTS, assert_close, on_all


def stacked(count, dtype=np.float32):
  rng = np.random.default_rng(count)
  return {
    "a": rng.normal(size=(count, 3, 2)).astype(dtype),
    "b": rng.normal(size=count).astype(dtype),
  }


def powers(mixing, params, k):
  power = np.linalg.matrix_power(mixing, k)
  return jax.tree.map(
    lambda x: np.tensordot(power, x.astype(np.float64), 1), params
  )


def repeated(mix, k):
  return lambda params: jax.lax.fori_loop(0, k, lambda _, x: mix(x), params)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", [gossip.dense, gossip.ring])
def test_rounds_of_gossip_are_powers_of_the_matrix(form, backend, count):
  mixing = topology.metropolis_hastings(topology.ring(count))
  params = stacked(count)
  mixed = on_all(repeated(form(mixing), 3), params, backend=backend)
  assert jax.tree.map(lambda x: x.dtype, mixed) == {
    "a": np.float32,
    "b": np.float32,
  }
  assert_close(mixed, powers(mixing, params, 3), 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", [gossip.dense, gossip.ring])
def test_double_precision(form, backend, x64):
  # Three clients left a ring: a path, and three of their own.
  mixing = topology.remove(topology.ring(12), [4, 5, 6])
  params = stacked(12, np.float64)
  mixed = on_all(repeated(form(mixing), 5), params, backend=backend)
  assert_close(mixed, powers(mixing, params, 5), 1e-13)
  np.testing.assert_array_equal(mixed["b"][[4, 5, 6]], params["b"][[4, 5, 6]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_graph(backend):
  mixing = topology.metropolis_hastings(topology.erdos_renyi(16, 0.4, seed=1))
  params = stacked(16)
  mixed = on_all(gossip.dense(mixing), params, backend=backend)
  assert_close(mixed, powers(mixing, params, 1), 1e-6)


def test_what_one_client_says_reaches_all_at_the_rate_rho(x64):
  mixing = topology.metropolis_hastings(topology.ring(8))
  rho = topology.spectrum(mixing).rho
  for k in (5, 10, 20):
    spread = on_all(repeated(gossip.ring(mixing), k), np.eye(8))
    assert np.abs(spread - 1 / 8).max() <= rho**k * (1 - 1 / 8)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("form", [gossip.dense, gossip.ring])
def test_dtypes_are_kept(form, dtype, x64):
  mixing = topology.metropolis_hastings(topology.ring(4))
  mixed = on_all(form(mixing), jnp.ones((4, 2), dtype))
  assert mixed.dtype == dtype
  np.testing.assert_allclose(mixed.astype(np.float32), 1, atol=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_server_averages(backend):
  params = {**stacked(8), "steps": np.arange(8, dtype=np.int32)}
  weight = np.array([3, 0, 1, 2, 0, 5, 1, 4], np.float32)
  result = on_all(gossip.average, params, weight, backend=backend)
  for name, x in params.items():
    expected = np.average(x, axis=0, weights=weight)
    expected = np.broadcast_to(expected, x.shape).astype(x.dtype)
    np.testing.assert_allclose(result[name], expected, rtol=1e-5, atol=1e-6)
    assert result[name].dtype == x.dtype


def test_what_absent_clients_hold_is_not_read():
  params = np.array([1.0, np.nan, 3.0, np.inf], np.float32)
  result = on_all(gossip.average, params, np.array([1, 0, 1, 0], np.float32))
  np.testing.assert_array_equal(result, 2)
  nobody = on_all(gossip.average, params, np.zeros(4, np.float32))
  assert np.isnan(nobody).all()


def test_shares_of_many_clients_in_16_bits():
  params = jnp.ones(1000, jnp.bfloat16)
  result = on_all(gossip.average, params, np.full(1000, 7, np.float32))
  np.testing.assert_array_equal(result.astype(np.float32), 1)


@pytest.mark.parametrize("form", [gossip.dense, gossip.ring])
def test_a_matrix_of_other_clients_is_refused(form):
  mixing = topology.metropolis_hastings(topology.ring(5))
  with pytest.raises(ValueError, match="mixing has 5 rows; for 4 clients"):
    on_all(form(mixing), np.ones(4, np.float32))


@pytest.mark.parametrize(
  "adjacency", [topology.torus(3, 3), topology.complete(2)]
)
def test_what_is_no_ring_is_refused(adjacency):
  with pytest.raises(ValueError, match="not of a ring"):
    gossip.ring(topology.metropolis_hastings(adjacency))
