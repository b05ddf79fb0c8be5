"""The lemmas of `junlearn.certify` that no other test looks at, in numbers."""

import fractions
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn.certify import calibrate, constants
from junlearn.clients import topology
from tests import softmax

norm = np.linalg.norm


def third_moment(points, probabilities):
  mean = np.sum(points * probabilities, -1, keepdims=True)
  return np.sum(probabilities * (points - mean) ** 3, -1)


def test_third_moment_on_an_interval():
  """Lemma 3 (b): never above, for laws of two to eight points; attained."""
  rng = np.random.default_rng(0)
  length = 2.3
  largest = length**3 / (6 * math.sqrt(3))
  found = []
  for count in range(2, 9):
    points = length * rng.beta(0.2, 0.2, (20000, count)) - 0.7
    probabilities = rng.dirichlet(np.full(count, 0.5), 20000)
    found.append(np.max(np.abs(third_moment(points, probabilities))))
  assert max(found) <= largest
  assert max(found) > 0.99 * largest
  share = (1 - 1 / math.sqrt(3)) / 2
  two = third_moment(np.array([length, 0]), np.array([share, 1 - share]))
  np.testing.assert_allclose(two, largest, rtol=1e-14)


def test_third_derivative_along_three_directions(x64):
  """Lemma 3 (a, c): a softmax head, its weights and input drawn at random.

  The largest value, found by alternating maximisation, has equal directions.
  """
  radius, classes = 1.3, 4

  def loss(w, x):
    logits = x @ w
    return optax.softmax_cross_entropy_with_integer_labels(logits, 1)

  def along(w, x, *directions):
    def derivative(function, direction):
      return lambda w: jax.jvp(function, (w,), (direction,))[1]

    return functools.reduce(derivative, directions, lambda w: loss(w, x))(w)

  def unit(x):
    return x / jnp.sqrt(jnp.sum(x**2))

  def climb(key):
    keys = jax.random.split(key, 6)
    x = radius * unit(jax.random.normal(keys[0], (3,)))
    w = 3 * jax.random.normal(keys[1], (3, classes))
    u, v, t = (unit(jax.random.normal(k, w.shape)) for k in keys[2:5])
    drawn = along(w, x, u, v, t)

    def best(_, directions):
      u, v, t = directions
      return unit(jax.grad(along, 2)(w, x, u, v, t)), u, v

    u, v, t = jax.lax.fori_loop(0, 600, best, (u, v, t))
    return drawn, along(w, x, u, v, t), jnp.abs(jnp.vdot(u, v))

  keys = jax.random.split(jax.random.key(0), 200)
  drawn, most, cosine = jax.jit(jax.vmap(climb))(keys)
  bound = constants.softmax(input_norm=radius, l2=1.0, num_classes=classes)
  assert np.abs(drawn).max() <= bound.hessian_lipschitz
  assert 0.9 * bound.hessian_lipschitz < most.max() <= bound.hessian_lipschitz
  assert np.median(cosine) > 0.999


GRAPHS = {
  "ring": topology.ring(5),
  "torus": topology.torus(2, 3),
  "random": topology.erdos_renyi(6, 0.5, seed=1),
  "left": topology.complete(4),
}


def clients(count, *, l2=0.1):
  """The gradients of all clients' risks at X, and params to start from."""
  rng = np.random.default_rng(count)
  x = rng.normal(size=(count, 7, 2))
  y = rng.integers(0, 3, (count, 7))

  def gradient(params):
    return np.stack(
      [
        softmax.gradient(row, x[i], y[i], np.ones(7), l2)
        for i, row in enumerate(params)
      ]
    )

  def risk(params):
    value = 0.0
    for i, row in enumerate(params):
      p = softmax.probabilities(row, x[i])[np.arange(7), y[i]]
      value += -np.mean(np.log(p)) + l2 / 2 * row @ row
    return value

  return risk, gradient, rng.normal(size=(count, 6))


def potential_error(mixing, step):
  """Of `grad Psi = (X - T(X)) / gamma`, relative, by differences of Psi."""
  risk, gradient, at = clients(len(mixing))

  def psi(params):
    apart = np.sum(params * (params - mixing @ params))
    return risk(params) + apart / (2 * step)

  numeric, width = np.zeros_like(at), 1e-5
  for index in np.ndindex(at.shape):
    there = np.zeros_like(at)
    there[index] = width
    numeric[index] = (psi(at + there) - psi(at - there)) / (2 * width)
  claimed = (at - (mixing @ at - step * gradient(at))) / step
  return norm(numeric - claimed) / norm(claimed)


@pytest.mark.parametrize("name", GRAPHS)
def test_rounds_descend_psi(name):
  """Lemma 4, for symmetric matrices."""
  mixing = topology.metropolis_hastings(GRAPHS[name])
  if name == "left":
    mixing = topology.remove(GRAPHS[name], 2)
  assert potential_error(mixing, 0.3) < 1e-8
  assert np.linalg.eigvalsh(np.eye(len(mixing)) - mixing).min() > -1e-14


def test_rounds_of_a_matrix_that_is_not_symmetric_descend_nothing():
  """Lemma 4: rows that sum to 1 are not enough, for either property."""
  adjacency = topology.from_edges(5, [(0, i) for i in range(1, 5)])
  weights = adjacency + np.eye(5)
  mixing = weights / weights.sum(1, keepdims=True)
  assert potential_error(mixing, 0.3) > 0.1
  apart = np.eye(5) - (mixing + mixing.T) / 2
  assert np.linalg.eigvalsh(apart).min() < -0.05


def test_row_sums_off_one_cost_convexity():
  """Lemma 4: at most the largest excess over 1; attained by equal rows."""
  rng = np.random.default_rng(3)
  mixing = topology.metropolis_hastings(topology.ring(6))
  for excess in (1e-3, 1e-2):
    off = mixing + np.diag(rng.uniform(-excess, excess, 6))
    least = np.linalg.eigvalsh(np.eye(6) - off).min()
    assert least >= -np.abs(off.sum(1) - 1).max()
    all_off = np.linalg.eigvalsh(np.eye(6) - mixing - excess * np.eye(6)).min()
    np.testing.assert_allclose(all_off, -excess, rtol=1e-8)


def test_equal_rows_with_noise_of_their_own_average_it_out():
  """After lemma 6: what 8 of them that claim (1, 1e-5) have together."""
  rng = np.random.default_rng(0)
  rows, delta = 8, 1e-5
  sigma = calibrate.gaussian_sigma(1.0, delta, 1.0)
  mean = rng.normal(0, sigma, (200_000, rows)).mean(1)
  left = mean.std()
  np.testing.assert_allclose(left, sigma / math.sqrt(rows), rtol=0.01)
  epsilon = calibrate.gaussian_epsilon(delta, 1.0, sigma / math.sqrt(rows))
  assert f"{epsilon:.2f}" == "3.19"


@pytest.mark.parametrize("dimension", [1, 30, 5000])
def test_rounding_two_models_to_a_grid(dimension):
  """Lemma 8: the distance grows by at most `g sqrt(d)`; nearly attained."""
  rng = np.random.default_rng(dimension)
  grid, excess = 2.0**-6, []
  for scale in (1e-3, 0.1, 1.0, 100.0):
    for _ in range(100):
      first = rng.normal(size=dimension)
      second = first + grid * scale * rng.normal(size=dimension)
      rounded = [np.rint(x / grid) * grid for x in (first, second)]
      excess.append(norm(rounded[0] - rounded[1]) - norm(first - second))
  assert max(excess) <= grid * math.sqrt(dimension)
  low = np.full(dimension, (0.5 - 1e-9) * grid)
  high = np.full(dimension, (0.5 + 1e-9) * grid)
  apart = norm(np.rint(high / grid) - np.rint(low / grid)) * grid
  np.testing.assert_allclose(apart, grid * math.sqrt(dimension), rtol=1e-12)


def test_rounded_noise_is_post_processing_and_exact():
  """Lemma 8: `[a] + [b] = [[a] + b]`, by fractions, up to 2^52 steps."""
  rng = np.random.default_rng(0)
  grid, sigma = 2.0**-30, 2.0**-10
  params = rng.uniform(-1, 1, 5000) * 2.0 ** rng.integers(-10, 22, 5000)
  noise = rng.normal(0, sigma, 5000)
  on_grid = np.rint(params / grid) * grid
  released = on_grid + np.rint(noise / grid) * grid
  for a, b, found in zip(on_grid, noise, released, strict=True):
    steps = (fractions.Fraction(a) + fractions.Fraction(b)) * 2**30
    assert fractions.Fraction(found) * 2**30 == round(steps)


def allowance(count):
  return count * 2.0**-53 / (1 - count * 2.0**-53)


@pytest.mark.parametrize("count", [10, 1000, 30000])
def test_sums_are_wrong_by_no_more_than_the_allowance(count):
  """Lemma 9, against exact sums, in several orders; attained but for one."""
  rng = np.random.default_rng(count)
  powers = rng.integers(-6, 6, (count, 1))
  rows = rng.normal(size=(count, 3)) * 10.0**powers
  allowed = allowance(count) * norm(rows, axis=1).sum()
  exact = np.array([math.fsum(column) for column in rows.T])
  down = rows[np.argsort(-np.abs(rows[:, 0]))]
  for computed in (
    np.cumsum(rows, 0)[-1],
    np.cumsum(down, 0)[-1],
    rows.sum(0),
    np.ones(count) @ rows,
  ):
    assert norm(computed - exact) <= allowed
  halves = np.full(count, 2.0**-53)
  halves[0] = 1
  assert np.cumsum(halves)[-1] == 1  # each of the others is lost, added to 1
  assert 0.9 * allowance(count - 1) < 2.0**-53 * (count - 1) < allowance(count)
