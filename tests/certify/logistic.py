"""Logistic regression in NumPy, minimized to rounding."""

import numpy as np
from scipy import special

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


def minimize(gradient, hessian, w):
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


def sound(bound, distance):
  """The bound holds, up to the rounding of the retrained oracle."""
  return distance <= bound * (1 + 1e-9) + 1e-12
