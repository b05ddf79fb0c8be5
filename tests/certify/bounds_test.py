"""Soundness against exact retraining, in NumPy and double precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.certify import bounds, constants
from tests.certify.logistic import Logistic, minimize, norm, sound

INSTANCES = 220


def random_problem(rng, l2=None):
  n, d = rng.integers(20, 80), rng.integers(2, 7)
  x = rng.normal(size=(n, d)) + rng.normal(0, 1, d)
  x /= np.maximum(norm(x, axis=1, keepdims=True), 0.3)  # some on the sphere
  y = np.sign(x @ rng.normal(size=d) + rng.normal(0, 0.3, n))
  y[y == 0] = 1
  return Logistic(x, y, l2 or 10 ** rng.uniform(-2, 0))


@functools.cache
def instances():
  """Random data, penalty, deleted set; hard sets among them."""
  found = []
  for seed in range(INSTANCES):
    rng = np.random.default_rng(seed)
    risk = random_problem(rng)
    n, d = risk.x.shape
    m = int(rng.integers(1, n // 3))
    removed = rng.permutation(n)[:m]
    if seed % 3 == 0:  # forgotten examples that pull together
      risk.x[removed] = risk.x[removed[0]] / norm(risk.x[removed[0]])
      risk.y[removed] = -1
    trained = minimize(risk.gradient, risk.hessian, np.zeros(d))
    if seed % 4 == 0:  # a training that stopped early
      trained = trained + rng.normal(0, 1e-3, d)
    retained = risk.without(removed)
    retrained = minimize(retained.gradient, retained.hessian, np.zeros(d))
    radius = norm(risk.x, axis=1).max()
    known = constants.logistic(input_norm=radius, l2=risk.l2)
    found.append((rng, risk, retained, m, trained, retrained, known))
  return found


def test_residual():
  ratios = []
  for rng, risk, retained, _, trained, retrained, _ in instances():
    newton = trained - np.linalg.solve(
      retained.hessian(trained), retained.gradient(trained)
    )
    anywhere = trained + rng.normal(size=len(trained))
    for w in (trained, newton, anywhere):
      distance = norm(w - retrained)
      bound = bounds.residual(norm(retained.gradient(w)), l2=risk.l2)
      assert sound(bound, distance)
      if distance > 1e-9:
        ratios.append(bound / distance)
  assert len(ratios) > 2 * INSTANCES
  assert max(ratios) <= 100
  assert min(ratios) < 1.3  # no room for a smaller constant


def test_newton_step():
  for _, risk, retained, _, trained, retrained, known in instances():
    g = retained.gradient(trained)
    step = np.linalg.solve(retained.hessian(trained), g)
    bound = bounds.newton_step(
      norm(g), l2=risk.l2, hessian_lipschitz=known.hessian_lipschitz
    )
    assert sound(bound, norm(trained - step - retrained))


def test_inexact_newton_step():
  for rng, risk, retained, _, trained, retrained, known in instances():
    g, hessian = retained.gradient(trained), retained.hessian(trained)
    exact = np.linalg.solve(hessian, g)
    steps = (g / np.diag(hessian), exact * (1 + rng.normal(0, 0.1)), 0 * g)
    for step in steps:
      bound = bounds.inexact_newton_step(
        norm(g),
        norm(g - hessian @ step),
        l2=risk.l2,
        hessian_lipschitz=known.hessian_lipschitz,
      )
      assert sound(bound, norm(trained - step - retrained))


def test_a_priori_and_sekhari():
  for _, risk, retained, m, trained, retrained, known in instances():
    settings = {
      "l2": risk.l2,
      "optimum_gradient": known.optimum_gradient,
      "hessian_lipschitz": known.hessian_lipschitz,
    }
    g, hessian = retained.gradient(trained), retained.hessian(trained)
    step = np.linalg.solve(hessian, g) * 1.01
    left = norm(risk.gradient(trained))
    bound = bounds.a_priori(
      m,
      len(risk.y),
      training_residual=left,
      solve_error=norm(g - hessian @ step),
      **settings,
    )
    assert sound(bound, norm(trained - step - retrained))
    # What the theorem rests on: how far the optimum can move.
    moved = left + m * known.optimum_gradient / len(risk.y)
    assert sound(bounds.residual(moved, l2=risk.l2), norm(trained - retrained))
    plain = bounds.a_priori(m, len(risk.y), **settings)
    np.testing.assert_allclose(
      bounds.sekhari(m, len(risk.y), **settings),
      2
      * known.hessian_lipschitz
      * (m * known.optimum_gradient / len(risk.y)) ** 2
      / risk.l2**3,
    )
    assert plain <= bounds.sekhari(m, len(risk.y), **settings)


def test_guo_adds_over_removals():
  lipschitz = constants.logistic(input_norm=1.0, l2=1.0).hessian_lipschitz
  for seed in range(40):
    rng = np.random.default_rng(seed)
    risk = random_problem(rng, l2=0.05)
    n, d = risk.x.shape
    w = minimize(risk.gradient, risk.hessian, np.zeros(d))
    budget, remaining = 0.0, risk
    for k in range(1, 4):
      # The removed example's part of the sum, with its share of the penalty.
      gone = Logistic(remaining.x[:1], remaining.y[:1], risk.l2)
      remaining = remaining.without([0])
      hessian = (n - k) * remaining.hessian(w)
      step = np.linalg.solve(hessian, gone.gradient(w))
      budget += bounds.guo(
        norm(step),
        norm(remaining.x @ step),
        norm(remaining.x, 2),
        lipschitz=lipschitz,
        input_norm=norm(remaining.x, axis=1).max(),
      )
      w = w + step
      left = (n - k) * norm(remaining.gradient(w))
      assert left <= budget + 1e-11
    retrained = minimize(remaining.gradient, remaining.hessian, w)
    bound = bounds.residual(budget, l2=(n - 3) * risk.l2)
    assert sound(bound, norm(w - retrained))


def test_constants_of_the_theorems_are_the_smallest():
  """One dimension where all bounds become equalities as `w` shrinks.

  `F'(w) = l2/2 w^2 + M/6 |w|^3`, minimized at 0; the removed examples add a
  linear term.
  """
  l2, lipschitz, n, m, linear = 0.7, 3.0, 1000, 2, 0.02
  shift = m * linear / n
  # F(w) = F'(w) - shift * w has its optimum where F''s slope is shift.
  w = (-l2 + np.sqrt(l2**2 + 2 * lipschitz * shift)) / lipschitz
  slope, curvature = l2 * w + lipschitz / 2 * w**2, l2 + lipschitz * w
  np.testing.assert_allclose(slope, shift)
  distance = abs(w - slope / curvature)
  options = {"l2": l2, "hessian_lipschitz": lipschitz}
  for bound in (
    bounds.newton_step(slope, **options),
    bounds.a_priori(m, n, optimum_gradient=linear, **options),
    bounds.stacked_a_priori(m, n, gradient=linear / 2, **options),
    # Nothing moves the optimum, but the training stopped at this slope.
    bounds.a_priori(
      m, n, optimum_gradient=0.0, training_residual=slope, **options
    ),
    bounds.stacked_a_priori(
      m, n, gradient=0.0, training_residual=slope, **options
    ),
  ):
    assert distance <= bound <= 1.01 * distance
  assert w <= bounds.residual(slope, l2=l2) <= 1.01 * w
  for public in (
    bounds.a_priori(m, n, optimum_gradient=0.0, solve_error=slope, **options),
    bounds.stacked_a_priori(m, n, gradient=0.0, solve_error=slope, **options),
  ):
    np.testing.assert_allclose(public, slope / l2)
  unsolved = bounds.inexact_newton_step(slope, slope, **options)
  assert w <= unsolved <= 1.01 * w


def test_guo_is_attained_where_the_curvature_changes_most():
  lipschitz = constants.logistic(input_norm=1.0, l2=1.0).hessian_lipschitz
  w, p = np.array([np.log(2 + np.sqrt(3))]), np.array([1e-3])
  risk = Logistic(np.ones((1, 1)), np.array([-1.0]), 0.1)
  left = risk.gradient(w + p) - risk.gradient(w) - risk.hessian(w) @ p
  bound = bounds.guo(norm(p), norm(p), 1.0, lipschitz=lipschitz, input_norm=1.0)
  assert norm(left) <= bound <= 1.01 * norm(left)


# Rounding.


@pytest.mark.parametrize("error", [0.0, 1e-3, 2.0])
def test_what_rounding_did_to_a_norm_is_added_to_it(error):
  """A true gradient that much longer has the same bound."""
  assert bounds.residual(0.3, l2=0.1, gradient_error=error) == pytest.approx(
    bounds.residual(0.3 + error, l2=0.1), rel=1e-14
  )
  options = {"contraction": 0.9}
  assert bounds.fixed_point_residual(
    0.3, residual_error=error, **options
  ) == pytest.approx(
    bounds.fixed_point_residual(0.3 + error, **options), rel=1e-14
  )


# Floats and traced scalars.


def test_traced_scalars_give_the_same_numbers(x64):
  def every_bound(x):
    mixed = bounds.mixing_contraction(
      step_size=x, l2=0.1, smoothness=0.4, smallest_eigenvalue=-0.2
    )
    local = bounds.local_contraction(
      step_size=x, l2=0.1, smoothness=0.4, num_local_steps=2
    )
    public = {"l2": x, "hessian_lipschitz": 0.1}
    return [
      bounds.residual(x, l2=0.1),
      bounds.residual(x, l2=0.1, gradient_error=x),
      bounds.fixed_point_residual(x, contraction=mixed, residual_error=x),
      bounds.fixed_point_residual(x, contraction=mixed),
      bounds.fixed_point_residual(x, contraction=local),
      bounds.inexact_newton_step(x, x, l2=0.1, hessian_lipschitz=x),
      bounds.a_priori(x, 10, optimum_gradient=1.0, **public),
      bounds.stacked_a_priori(x, 10, gradient=1.0, **public),
      bounds.guo(x, x, x, lipschitz=0.1, input_norm=1.0),
    ]

  with np.errstate(all="raise"):
    floats = every_bound(0.3)
  assert all(isinstance(value, float) for value in floats)
  np.testing.assert_allclose(jax.jit(every_bound)(0.3), floats, rtol=1e-14)


def test_single_precision_is_not_promoted():
  value = jax.jit(lambda g: bounds.residual(g, l2=0.1))(jnp.float32(1))
  assert value.dtype == jnp.float32


def test_a_traced_expansion_has_no_bound():
  bound = jax.jit(lambda k: bounds.fixed_point_residual(1.0, contraction=k))
  assert np.isinf(bound(1.0)) and np.isinf(bound(1.5))


def test_not_a_number_is_no_bound():
  nan = float("nan")
  assert np.isnan(bounds.residual(nan, l2=0.1))
  assert np.isnan(bounds.residual(0.1, l2=0.1, gradient_error=nan))
  assert np.isnan(
    bounds.fixed_point_residual(0.1, contraction=0.5, residual_error=nan)
  )


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: bounds.residual(1.0, l2=0.0), r"l2 is 0\.0"),
    (lambda: bounds.residual(1.0, l2=float("nan")), "l2 is nan"),
    (lambda: bounds.residual(-1.0, l2=1.0), r"gradient_norm is -1\.0"),
    (
      lambda: bounds.residual(1.0, l2=1.0, gradient_error=-1e-9),
      "gradient_error is -1e-09",
    ),
    (
      lambda: bounds.fixed_point_residual(
        1.0, contraction=0.5, residual_error=-1e-9
      ),
      "residual_error is -1e-09",
    ),
    (
      lambda: bounds.fixed_point_residual(1.0, contraction=1.0),
      r"contraction is 1\.0",
    ),
    (
      lambda: bounds.a_priori(
        5, 4, l2=1.0, optimum_gradient=1.0, hessian_lipschitz=1.0
      ),
      "num_removed is 5",
    ),
    (
      lambda: bounds.stacked_a_priori(
        1, 4, l2=1.0, gradient=1.0, hessian_lipschitz=1.0, solve_error=-1.0
      ),
      r"solve_residual is -1\.0",
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
