"""Retraining of a linear head, written out in NumPy: exact optima.

Another implementation than the library's, in the extended precision that the
machine has (`np.longdouble`), of models whose outputs are

    z = features(x) theta expand + offset(x),

one client's theta being `[features, columns]`, those of all `[clients,
features, columns]`. Hessians are dense, in double precision; Newton's method
with extended gradients ends at the extended optimum all the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EXTENDED = np.longdouble
_MAX_STEPS = 300
_FACTOR, _MAX_POWER = 4.0, 5  # of the penalties on the way
_PRECISION = 1e-14  # relative, of the last step, whose own error is far less


class Problem(NamedTuple):
  """The risks of all clients; a single model is one client.

  Attributes:
    features: `[clients, n, features]`.
    offset: `[clients, n, outputs]`, what outputs are where theta is 0.
    target: `[clients, n, outputs]`: of a class, 1 at it and 0 elsewhere.
    weight: `[clients, n]`, 0 or 1.
    expand: `[columns, outputs]`.
    squared: whether the loss is `|z - target|^2`; else softmax cross-entropy.
    l2: of the penalty.
    sample: whether examples count alike, not clients.
    mixing: `[clients, clients]`.
    step_size: gamma.
    local_steps: tau.
  """

  features: np.ndarray
  offset: np.ndarray
  target: np.ndarray
  weight: np.ndarray
  expand: np.ndarray
  squared: bool
  l2: float
  sample: bool = False
  mixing: np.ndarray = np.ones((1, 1))
  step_size: float = 1.0
  local_steps: int = 1

  @property
  def shape(self) -> tuple[int, ...]:
    """Of theta, all clients'."""
    return len(self.weight), self.features.shape[-1], len(self.expand)

  @property
  def factors(self) -> np.ndarray:
    """What an example's loss is multiplied by, `[clients, n]`."""
    counts = self.weight.sum(1).astype(EXTENDED)
    scale = np.ones(len(counts), EXTENDED)
    if self.sample:
      scale = (counts > 0).sum() * counts / counts.sum()
    return (scale / np.maximum(counts, 1))[:, None] * self.weight

  def outputs(self, theta: np.ndarray) -> np.ndarray:
    """z, `[clients, n, outputs]`."""
    return self.features @ theta @ self.expand + self.offset

  def gradients(self, theta: np.ndarray) -> np.ndarray:
    """Of every client's risk."""
    z = self.outputs(theta.astype(EXTENDED))
    if self.squared:
      slope = 2 * (z - self.target)
    else:
      slope = _probabilities(z) - self.target
    slope = self.factors[..., None] * (slope @ self.expand.T)
    return self.features.swapaxes(1, 2) @ slope + EXTENDED(self.l2) * theta

  def hessians(self, theta: np.ndarray) -> np.ndarray:
    """`[clients, numbers, numbers]`, of every client's risk."""
    z = self.outputs(theta).astype(float)
    identity = np.eye(z.shape[-1])
    if self.squared:
      bend = np.broadcast_to(2 * identity, (*z.shape, z.shape[-1]))
    else:
      p = _probabilities(z)
      bend = p[..., None] * (identity - p[..., None, :])
    bend = self.factors.astype(float)[..., None, None] * (
      self.expand @ bend @ self.expand.T
    )
    features = self.features.astype(float)
    pairs = np.einsum(
      "inf,ing,incd->ifcgd", features, features, bend, optimize=True
    )
    numbers = theta[0].size
    each = pairs.reshape(len(theta), numbers, numbers)
    return each + self.l2 * np.eye(numbers)


class Equation(NamedTuple):
  """What is 0 at retraining, of theta of the shape, and its derivative."""

  shape: tuple[int, ...]
  value: Callable[[np.ndarray], np.ndarray]
  jacobian: Callable[[np.ndarray], np.ndarray]


def minimum(problem: Problem) -> Equation:
  """The mean gradient of the clients that have not left, theta of one row."""
  here = np.diag(problem.mixing) != 1
  if len(here) == 1:
    here[:] = True

  def everywhere(theta):
    return np.broadcast_to(theta, problem.shape)

  return Equation(
    (1, *problem.shape[1:]),
    lambda x: problem.gradients(everywhere(x))[here].mean(0, keepdims=True),
    lambda x: problem.hessians(everywhere(x))[here].mean(0),
  )


def fixed_point(problem: Problem) -> Equation:
  """`X - T(X)` of the rounds of training."""
  gamma, numbers = problem.step_size, int(np.prod(problem.shape[1:]))
  mix = np.kron(problem.mixing, np.eye(numbers))

  def mixed(theta):
    return np.einsum("ij,jfc->ifc", problem.mixing.astype(EXTENDED), theta)

  def value(theta):
    if problem.local_steps == 1:
      moved = mixed(theta) - gamma * problem.gradients(theta)
    else:
      moved = theta
      for _ in range(problem.local_steps):
        moved = moved - gamma * problem.gradients(moved)
      moved = mixed(moved)
    return theta - moved

  def jacobian(theta):
    identity = np.eye(len(mix))
    if problem.local_steps == 1:
      return identity - mix + gamma * _blocks(problem.hessians(theta))
    local = identity
    for _ in range(problem.local_steps):
      local = (identity - gamma * _blocks(problem.hessians(theta))) @ local
      theta = theta - gamma * problem.gradients(theta)
    return identity - mix @ local

  return Equation(problem.shape, value, jacobian)


def solve(
  equation: Callable[[Problem], Equation], problem: Problem
) -> np.ndarray:
  """Where it is 0, in extended precision.

  By Newton's method, from the solution for a larger penalty, since where the
  penalty is weak the curvature far from the optimum is next to nothing.

  Args:
    equation: `minimum` or `fixed_point`.
    problem: gives the shape.

  Raises:
    ArithmeticError: if it is not reached.
  """
  theta = np.zeros(equation(problem).shape, EXTENDED)
  for power in range(_MAX_POWER, -1, -1):
    l2 = problem.l2 * _FACTOR**power
    if l2 <= 1 or not power:
      theta = _newton(equation(problem._replace(l2=l2)), theta)
  return theta


def _newton(equation, theta):
  value = equation.value(theta)
  for _ in range(_MAX_STEPS):
    solved = np.linalg.solve(
      equation.jacobian(theta), value.ravel().astype(float)
    )
    step = solved.reshape(theta.shape).astype(EXTENDED)
    if _norm(step) <= _PRECISION * _norm(theta) or not value.any():
      return theta - step
    while True:
      after = equation.value(theta - step)
      if _norm(after) < _norm(value):
        break
      step /= 2
      if not _norm(step) > _PRECISION * _norm(theta):
        raise ArithmeticError("the oracle's residual falls no further.")
    theta, value = theta - step, after
  raise ArithmeticError("the oracle reached no optimum.")


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """`|a - b|`."""
  return float(_norm(a.astype(EXTENDED) - b))


def _norm(x):
  largest = np.max(np.abs(x))
  return largest and largest * np.sqrt(np.sum((x / largest) ** 2))


def _probabilities(z):
  p = np.exp(z - z.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def _blocks(matrices):
  clients, numbers = matrices.shape[:2]
  whole = np.zeros((clients, numbers, clients, numbers))
  whole[range(clients), :, range(clients)] = matrices
  return whole.reshape(clients * numbers, -1)
