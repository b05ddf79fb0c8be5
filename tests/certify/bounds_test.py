"""Soundness against exact retraining, in NumPy and double precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from junlearn.certify import bounds, constants

INSTANCES = 220
norm = np.linalg.norm


class Logistic:
  """`mean log(1 + exp(-y x.w)) + l2/2 |w|^2`, over rows that are kept."""

  def __init__(self, x, y, l2):
    self.x, self.y, self.l2 = x, y, l2

  def gradient(self, w):
    slope = -self.y * special.expit(-self.y * (self.x @ w))
    return self.x.T @ slope / len(self.y) + self.l2 * w

  def hessian(self, w):
    p = special.expit(self.x @ w)
    curved = self.x.T * (p * (1 - p)) @ self.x / len(self.y)
    return curved + self.l2 * np.eye(len(w))

  def without(self, removed):
    keep = np.setdiff1d(np.arange(len(self.y)), removed)
    return Logistic(self.x[keep], self.y[keep], self.l2)


def minimise(gradient, hessian, w):
  """Damped Newton, to rounding."""
  for _ in range(200):
    g = gradient(w)
    if norm(g) < 1e-14:
      return w
    step, size = np.linalg.solve(hessian(w), g), 1.0
    while norm(gradient(w - size * step)) > norm(g) and size > 1e-8:
      size /= 2
    w = w - size * step
  assert norm(gradient(w)) < 1e-12
  return w


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
    trained = minimise(risk.gradient, risk.hessian, np.zeros(d))
    if seed % 4 == 0:  # a training that stopped early
      trained = trained + rng.normal(0, 1e-3, d)
    retained = risk.without(removed)
    retrained = minimise(retained.gradient, retained.hessian, np.zeros(d))
    radius = norm(risk.x, axis=1).max()
    known = constants.logistic(input_norm=radius, l2=risk.l2)
    found.append((rng, risk, retained, m, trained, retrained, known))
  return found


def sound(bound, distance):
  """The bound holds, up to the rounding of the retrained oracle."""
  return distance <= bound * (1 + 1e-9) + 1e-12


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
    w = minimise(risk.gradient, risk.hessian, np.zeros(d))
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
    retrained = minimise(remaining.gradient, remaining.hessian, w)
    bound = bounds.residual(budget, l2=(n - 3) * risk.l2)
    assert sound(bound, norm(w - retrained))


def test_constants_of_the_theorems_are_the_smallest():
  """One dimension where all bounds become equalities as `w` shrinks.

  `F'(w) = l2/2 w^2 + M/6 |w|^3`, minimised at 0; the removed examples add a
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


# Decentralised rounds.


class Ring:
  """Clients of logistic risks on a ring, uniform weighting."""

  def __init__(self, risks, step_size):
    self.risks, self.step_size = risks, step_size
    n = len(risks)
    self.mixing = sum(np.roll(np.eye(n), k, 1) for k in (-1, 0, 1)) / 3
    self.shape = (n, risks[0].x.shape[1])

  def gradients(self, stacked):
    pairs = zip(self.risks, stacked, strict=True)
    return np.stack([risk.gradient(w) for risk, w in pairs])

  def round(self, stacked):
    return self.mixing @ stacked - self.step_size * self.gradients(stacked)

  def local_rounds(self, stacked, num_local_steps):
    for _ in range(num_local_steps):
      stacked = stacked - self.step_size * self.gradients(stacked)
    return self.mixing @ stacked

  def potential_gradient(self, flat):
    stacked = flat.reshape(self.shape)
    return ((stacked - self.round(stacked)) / self.step_size).ravel()

  def potential_hessian(self, flat):
    n, d = self.shape
    mixing = np.kron(np.eye(n) - self.mixing, np.eye(d)) / self.step_size
    for i, w in enumerate(flat.reshape(self.shape)):
      rows = slice(i * d, (i + 1) * d)
      mixing[rows, rows] += self.risks[i].hessian(w)
    return mixing

  def optimum(self):
    start = np.zeros(np.prod(self.shape))
    return minimise(self.potential_gradient, self.potential_hessian, start)


def ring_instances(count):
  for seed in range(count):
    rng = np.random.default_rng(1000 + seed)
    l2 = 10 ** rng.uniform(-2, -0.5)
    risks = []
    for _ in range(5):
      n = rng.integers(8, 30)
      x = rng.normal(size=(n, 3)) + rng.normal(0, 1, 3)
      x /= norm(x, axis=1, keepdims=True)
      risks.append(Logistic(x, rng.choice([-1.0, 1.0], n), l2))
    known = constants.logistic(input_norm=1.0, l2=l2)
    ring = Ring(risks, 10 ** rng.uniform(-1, 0.3))
    m = int(rng.integers(1, len(risks[2].y) // 2))
    if seed % 2:
      risks[2].y[:m] = -1
      risks[2].x[:m] = risks[2].x[0]
    retained = [*risks]
    retained[2] = risks[2].without(np.arange(m))
    yield rng, ring, Ring(retained, ring.step_size), m, known, l2


def test_contraction_of_a_round():
  for rng, ring, _, _, known, l2 in ring_instances(40):
    options = {
      "step_size": ring.step_size,
      "l2": l2,
      "smoothness": known.smoothness,
    }
    smallest = np.linalg.eigvalsh(ring.mixing)[0]
    mixing = bounds.mixing_contraction(smallest_eigenvalue=smallest, **options)
    local = bounds.local_contraction(num_local_steps=3, **options)
    for _ in range(10):
      a, b = rng.normal(0, rng.choice([0.01, 1, 10]), (2, *ring.shape))
      change = norm(ring.round(a) - ring.round(b))
      assert change <= mixing * norm(a - b) * (1 + 1e-9)
      change = norm(ring.local_rounds(a, 3) - ring.local_rounds(b, 3))
      assert change <= local * norm(a - b) * (1 + 1e-9)


def test_contraction_is_attained_by_quadratics():
  """Diagonal Hessians at both ends of the spectrum, mixing included."""
  mixing = np.array([[0.2, 0.8], [0.8, 0.2]])  # eigenvalues 1 and -0.6
  for step_size, l2, smoothness in ((0.1, 0.5, 0.6), (1.0, 0.1, 1.3)):
    options = {"step_size": step_size, "l2": l2, "smoothness": smoothness}
    jacobians = [mixing - step_size * h * np.eye(2) for h in (l2, smoothness)]
    np.testing.assert_allclose(
      bounds.mixing_contraction(smallest_eigenvalue=-0.6, **options),
      max(norm(jacobian, 2) for jacobian in jacobians),
    )
    np.testing.assert_allclose(
      bounds.local_contraction(num_local_steps=4, **options),
      max(abs(1 - step_size * h) ** 4 for h in (l2, smoothness)),
    )


def test_fixed_point_residual_and_stacked_a_priori():
  ratios = []
  for rng, ring, retained, m, known, l2 in ring_instances(60):
    smallest = np.linalg.eigvalsh(ring.mixing)[0]
    contraction = bounds.mixing_contraction(
      step_size=ring.step_size,
      l2=l2,
      smoothness=known.smoothness,
      smallest_eigenvalue=smallest,
    )
    trained, retrained = ring.optimum(), retained.optimum()
    trained = trained + rng.normal(0, 1e-4, trained.shape)
    g = retained.potential_gradient(trained)
    hessian = retained.potential_hessian(trained)
    step = 0.99 * np.linalg.solve(hessian, g)
    for flat in (trained, trained - step):
      stacked = flat.reshape(ring.shape)
      if contraction < 1:
        bound = bounds.fixed_point_residual(
          norm(retained.round(stacked) - stacked), contraction=contraction
        )
        assert sound(bound, norm(flat - retrained))
        ratios.append(bound / norm(flat - retrained))
      gradient = norm(retained.potential_gradient(flat))
      bound = bounds.residual(gradient, l2=l2)
      assert sound(bound, norm(flat - retrained))
    left = norm(ring.potential_gradient(trained))
    bound = bounds.stacked_a_priori(
      m,
      len(ring.risks[2].y),
      l2=l2,
      gradient=known.gradient,
      hessian_lipschitz=known.hessian_lipschitz,
      training_residual=left,
      solve_error=norm(g - hessian @ step),
    )
    assert sound(bound, norm(trained - step - retrained))
    shift = 2 * known.gradient * m / len(ring.risks[2].y)
    assert norm(g) <= left + shift
  assert len(ratios) > 60
  assert np.median(ratios) <= 100


def test_fixed_point_of_local_steps():
  for rng, _, retained, _, known, l2 in ring_instances(10):
    retained.step_size = min(retained.step_size, 1 / known.smoothness)
    contraction = bounds.local_contraction(
      step_size=retained.step_size,
      l2=l2,
      smoothness=known.smoothness,
      num_local_steps=5,
    )
    fixed = np.zeros(retained.shape)
    for _ in range(int(np.log(1e-14) / np.log(contraction)) + 50):
      fixed = retained.local_rounds(fixed, 5)
      if norm(retained.local_rounds(fixed, 5) - fixed) < 1e-14:
        break
    for scale in (1e-6, 1e-2, 1.0):
      start = fixed + rng.normal(0, scale, fixed.shape)
      bound = bounds.fixed_point_residual(
        norm(retained.local_rounds(start, 5) - start), contraction=contraction
      )
      assert sound(bound, norm(start - fixed))


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
  assert np.isnan(bounds.residual(float("nan"), l2=0.1))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: bounds.residual(1.0, l2=0.0), "l2 is 0.0"),
    (lambda: bounds.residual(1.0, l2=float("nan")), "l2 is nan"),
    (lambda: bounds.residual(-1.0, l2=1.0), "gradient_norm is -1.0"),
    (
      lambda: bounds.fixed_point_residual(1.0, contraction=1.0),
      "contraction is 1.0",
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
      "solve_residual is -1.0",
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
