"""Bounds of rounds of clients against their fixed points, in NumPy."""

import numpy as np

from junlearn.certify import bounds, constants
from tests.certify.logistic import Logistic, minimize, norm, sound


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
    return minimize(self.potential_gradient, self.potential_hessian, start)


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
