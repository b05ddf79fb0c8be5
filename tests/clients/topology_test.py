"""Graphs against their definitions and closed-form spectra."""

import numpy as np
import pytest

from junlearn.clients import topology

GRAPHS = {
  "ring": topology.ring(8),
  "torus": topology.torus(3, 5),
  "exponential": topology.exponential(12),
  "complete": topology.complete(5),
  "erdos_renyi": topology.erdos_renyi(10, 0.4, seed=0),
  "path": topology.from_edges(4, [(0, 1), (1, 2), (3, 2)]),
}


def test_neighbors():
  def neighbors(adjacency, client):
    return set(np.flatnonzero(adjacency[client]).tolist())

  assert neighbors(topology.ring(5), 0) == {1, 4}
  assert neighbors(topology.torus(3, 4), 5) == {1, 9, 4, 6}
  assert neighbors(topology.torus(2, 2), 0) == {1, 2}
  assert neighbors(topology.exponential(9), 0) == {1, 8, 2, 7, 4, 5}
  assert neighbors(topology.exponential(2), 0) == {1}
  assert neighbors(topology.complete(4), 2) == {0, 1, 3}
  assert neighbors(GRAPHS["path"], 2) == {1, 3}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_mix(name):
  adjacency = GRAPHS[name]
  assert adjacency.dtype == bool
  mixing = topology.metropolis_hastings(adjacency)
  topology.check_mixing(mixing)
  assert mixing.dtype == np.float64
  np.testing.assert_array_equal(
    mixing != 0, adjacency | np.eye(len(mixing), dtype=bool)
  )
  degree = adjacency.sum(1)
  for i, j in np.argwhere(adjacency):
    assert mixing[i, j] == 1 / (1 + max(degree[i], degree[j]))


@pytest.mark.parametrize("name", GRAPHS)
def test_powers_approach_the_mean_at_the_rate_rho(name):
  mixing = topology.metropolis_hastings(GRAPHS[name])
  n = len(mixing)
  rho = topology.spectrum(mixing).rho
  for k in (0, 1, 5, 20):
    power = np.linalg.matrix_power(mixing, k)
    bound = rho**k * (1 - 1 / n)
    assert np.abs(power - 1 / n).max() <= bound + 1e-12
    # In the spectral norm the bound is met.
    assert np.linalg.norm(power - 1 / n, 2) == pytest.approx(rho**k, abs=1e-9)


@pytest.mark.parametrize("n", [3, 8, 9])
def test_spectrum_of_a_ring(n):
  values = (1 + 2 * np.cos(2 * np.pi * np.arange(n) / n)) / 3
  spectrum = topology.spectrum(topology.metropolis_hastings(topology.ring(n)))
  assert spectrum.second == pytest.approx(np.sort(values)[-2], abs=1e-12)
  assert spectrum.smallest == pytest.approx(values.min(), abs=1e-12)
  assert spectrum.rho == pytest.approx(np.sort(np.abs(values))[-2], abs=1e-12)


def test_rho_may_come_from_the_smallest_eigenvalue():
  mixing = 0.1 * np.eye(4) + 0.45 * topology.ring(4)
  spectrum = topology.spectrum(mixing)
  np.testing.assert_allclose(spectrum, (0.8, 0.1, -0.8), atol=1e-12)


def test_erdos_renyi_is_drawn_by_seed_and_probability():
  first, again, other = (
    topology.erdos_renyi(40, 0.3, seed=s) for s in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()
  density = first[np.triu_indices(40, 1)].mean()
  assert abs(density - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 780)


@pytest.mark.parametrize("clients", [3, [3], [0, 5], [1, 2, 3]])
def test_clients_that_left_are_isolated(clients):
  adjacency = topology.complete(7)
  mixing = topology.remove(adjacency, clients)
  gone = np.atleast_1d(clients)
  np.testing.assert_array_equal(mixing[gone], np.eye(7)[gone])
  keep = np.setdiff1d(np.arange(7), gone)
  rest = topology.metropolis_hastings(adjacency[np.ix_(keep, keep)])
  np.testing.assert_array_equal(mixing[np.ix_(keep, keep)], rest)
  topology.check_mixing(mixing, removed=gone)
  assert topology.spectrum(mixing, removed=gone) == topology.spectrum(rest)
  assert topology.spectrum(mixing).rho == pytest.approx(1)


@pytest.mark.parametrize(
  ("adjacency", "clients", "match"),
  [
    (GRAPHS["path"], 1, r"clients is \[1\], .* not connected"),
    (topology.ring(6), [0, 3], "not connected"),
    (topology.ring(4), 4, r"must be in \[0, 4\)"),
    (topology.ring(4), -1, r"must be in \[0, 4\)"),
    (topology.ring(3), [0, 1, 2], "all clients"),
  ],
)
def test_clients_that_cannot_leave(adjacency, clients, match):
  with pytest.raises(ValueError, match=match):
    topology.remove(adjacency, clients)


def _with(entries):
  mixing = topology.metropolis_hastings(topology.ring(4))
  for place, value in entries.items():
    mixing[place] = value
  return mixing


@pytest.mark.parametrize(
  ("mixing", "match"),
  [
    (np.ones((2, 3)), "square"),
    (_with({(0, 0): np.nan}), "NaN"),
    (np.array([[1.5, -0.5], [-0.5, 1.5]]), r"has the negative entry -0\.5;"),
    (_with({(0, 2): -1e-9, (2, 0): -1e-9}), "the negative entry -1e-09;"),
    (np.array([[0.5, 0.5], [0.4, 0.6]]), r"not symmetric \(off by 0\.1\)"),
    (_with({(0, 0): 1 / 3 + 0.02}), r"has a row that sums to 1\.02;"),
    (_with({(0, 0): 1 / 3 + 1e-11}), r"has a row that sums to 1\.00000000001;"),
    (_with({(0, 0): 0.3}), r"has a row that sums to 0\.9666666666667;"),
    (1.02 * topology.metropolis_hastings(topology.ring(4)), r"sums to 1\.02;"),
    (np.eye(2), "not connected"),
    (np.array([[0.0, 1.0], [1.0, 0.0]]), "periodic"),
    (np.kron(np.eye(2), np.full((2, 2), 0.5)), "not connected"),
  ],
)
def test_matrices_that_do_not_mix(mixing, match):
  with pytest.raises(ValueError, match=match):
    topology.check_mixing(mixing)


@pytest.mark.parametrize(
  ("mixing", "gone"),
  [
    (topology.metropolis_hastings(topology.ring(4)), []),
    (topology.remove(topology.ring(5), 2), [2]),
    (topology.remove(topology.complete(5), [0, 3]), [0, 3]),
    (np.ones((1, 1)), []),
  ],
)
def test_removed_clients_are_found(mixing, gone):
  np.testing.assert_array_equal(topology.removed(mixing), gone)


def test_rounding_is_no_offence():
  mixing = topology.metropolis_hastings(topology.erdos_renyi(60, 0.3, seed=0))
  topology.check_mixing(mixing)
  assert 0 < np.abs(mixing.sum(1) - 1).max() < 1e-2 * topology.TOLERANCE


def test_removed_clients_may_not_mix():
  mixing = topology.metropolis_hastings(topology.complete(4))
  with pytest.raises(ValueError, match="removed"):
    topology.check_mixing(mixing, removed=[1])


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: topology.ring(2), "n is 2"),
    (lambda: topology.complete(1), "n is 1"),
    (lambda: topology.torus(1, 5), "rows is 1"),
    (lambda: topology.torus(5, 1), "columns is 1"),
    (lambda: topology.exponential(1), "n is 1"),
    (lambda: topology.erdos_renyi(5, 0.0, seed=0), r"probability is 0\.0"),
    (lambda: topology.erdos_renyi(50, 0.01, seed=0), "none of 100 graphs"),
    (lambda: topology.from_edges(3, [(0, 3)]), r"\(0, 3\)"),
    (lambda: topology.from_edges(3, [(1, 1)]), r"\(1, 1\)"),
    (lambda: topology.metropolis_hastings(np.triu(np.ones((3, 3)))), "symm"),
    (lambda: topology.metropolis_hastings(np.ones(3)), "square"),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()
