"""Solvers against dense algebra with prescribed spectra."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import curvature


def symmetric(spectrum, seed=0):
  rng = np.random.default_rng(seed)
  q, _ = np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))
  return (q * np.asarray(spectrum)) @ q.T


def split(flat):
  """A vector as a pytree of two leaves, one of them a matrix."""
  flat = jnp.asarray(flat)
  return {"a": flat[:4].reshape(2, 2), "b": (flat[4:],)}


def join(tree):
  return jnp.concatenate([tree["a"].reshape(-1), tree["b"][0]])


def on_trees(matrix):
  matrix = jnp.asarray(matrix)
  return lambda v: split(matrix @ join(v))


def vector(n=12, seed=1):
  return np.random.default_rng(seed).normal(size=n)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "spectrum",
  [np.linspace(1, 2, 12), np.logspace(0, 4, 12), [1] * 6 + [100] * 6],
)
def test_conjugate_gradient_solves(spectrum):
  a, b = symmetric(spectrum), vector()
  x, info = jax.jit(
    lambda b: curvature.conjugate_gradient(on_trees(a), b, tolerance=1e-11)
  )(split(b))
  expected = np.linalg.solve(a, b)
  np.testing.assert_allclose(
    join(x), expected, atol=1e-9 * np.linalg.norm(expected)
  )
  np.testing.assert_allclose(
    info.residual, np.linalg.norm(b - a @ join(x)), atol=1e-14 * max(spectrum)
  )
  assert info.converged
  assert not info.indefinite


@pytest.mark.usefixtures("x64")
def test_conjugate_gradient_takes_a_step_an_eigenvalue():
  """Exact arithmetic needs as many steps as there are eigenvalues."""
  a = symmetric([1] * 4 + [5] * 4 + [30] * 4)
  _, info = curvature.conjugate_gradient(
    on_trees(a), split(vector()), tolerance=1e-10
  )
  assert info.steps == 3


@pytest.mark.usefixtures("x64")
def test_a_good_preconditioner_saves_steps():
  diagonal = np.logspace(0, 5, 12)
  a, b = np.diag(diagonal) + 0.1 * symmetric(np.ones(12)), vector()
  options = {"tolerance": 1e-10, "max_steps": 500}
  _, plain = curvature.conjugate_gradient(on_trees(a), split(b), **options)
  x, info = curvature.conjugate_gradient(
    on_trees(a),
    split(b),
    preconditioner=on_trees(np.diag(1 / diagonal)),
    **options,
  )
  np.testing.assert_allclose(join(x), np.linalg.solve(a, b), atol=1e-9)
  assert info.converged
  assert info.steps < plain.steps


def test_conjugate_gradient_keeps_single_precision():
  a, b = symmetric(np.linspace(1, 9, 12)).astype(np.float32), vector()
  x, info = curvature.conjugate_gradient(
    on_trees(a),
    split(b.astype(np.float32)),
    tolerance=np.float32(1e-5),
  )
  assert join(x).dtype == np.float32
  assert info.converged
  np.testing.assert_allclose(join(x), np.linalg.solve(a, b), atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_too_few_steps_are_reported():
  a, b = symmetric(np.logspace(0, 4, 12)), vector()
  x, info = curvature.conjugate_gradient(on_trees(a), split(b), max_steps=3)
  assert info.steps == 3
  assert not info.converged
  np.testing.assert_allclose(
    info.residual, np.linalg.norm(b - a @ join(x)), rtol=1e-10
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spectrum", [[-1.0] + [2.0] * 11, [-1.0] * 12])
def test_negative_curvature_is_reported(spectrum):
  a, b = symmetric(spectrum), vector()
  x, info = curvature.conjugate_gradient(on_trees(a), split(b))
  assert info.indefinite
  assert not info.converged
  assert np.all(np.isfinite(join(x)))
  np.testing.assert_allclose(
    info.residual, np.linalg.norm(b - a @ join(x)), rtol=1e-10
  )


@pytest.mark.usefixtures("x64")
def test_singular_systems_are_solved_in_range_and_reported_beyond():
  spectrum = np.array([0.0] * 3 + [1.0] * 4 + [2.0] * 5)
  a = symmetric(spectrum)
  inside = a @ vector()
  x, info = curvature.conjugate_gradient(
    on_trees(a), split(inside), tolerance=1e-10
  )
  assert info.converged
  np.testing.assert_allclose(a @ join(x), inside, atol=1e-9)
  _, info = curvature.conjugate_gradient(
    on_trees(a), split(inside + vector(seed=2)), tolerance=1e-10
  )
  assert not info.converged
  assert info.residual > 0.1


def test_a_zero_right_side_has_the_zero_solution():
  x, info = curvature.conjugate_gradient(lambda v: v, jnp.zeros(3))
  np.testing.assert_array_equal(x, 0)
  assert info.converged
  assert not info.indefinite


def test_what_is_not_finite_has_not_converged():
  nan = jnp.full(3, jnp.nan)
  assert not curvature.conjugate_gradient(lambda v: v, nan)[1].converged
  _, info = curvature.conjugate_gradient(lambda v: v * jnp.nan, jnp.ones(3))
  assert not info.converged


@pytest.mark.usefixtures("x64")
def test_maps_over_systems():
  spectra = np.stack([np.linspace(1, 2, 12), np.logspace(0, 3, 12)])
  matrices = jnp.asarray([symmetric(s, i) for i, s in enumerate(spectra)])
  b = jnp.asarray(vector())
  x, info = jax.vmap(
    lambda a: curvature.conjugate_gradient(lambda v: a @ v, b, tolerance=1e-10)
  )(matrices)
  assert np.all(info.converged)
  assert info.steps[0] < info.steps[1]
  for member in range(2):
    np.testing.assert_allclose(
      x[member], np.linalg.solve(matrices[member], b), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("steps", [0, -3])
def test_refuses_no_steps(steps):
  with pytest.raises(
    ValueError, match=re.escape(f"max_steps is {steps}; it must be")
  ):
    curvature.conjugate_gradient(lambda v: v, jnp.ones(2), max_steps=steps)
