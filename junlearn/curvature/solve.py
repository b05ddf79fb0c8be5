"""Linear systems through products with a matrix alone.

Failure is a value: solvers return what they reached and a `SolveInfo` whose
residual was computed from the answer, not carried along by the recursion.
`inner` is the inner product of two vectors. Where a vector is divided over
mapped axes (a client each, say), pass one that adds up over them, and all parts
take the same steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import validate
from junlearn.curvature.hvp import Matvec
from junlearn.typing import Vector

Inner = Callable[[Vector, Vector], jax.Array]


class SolveInfo(NamedTuple):
  """How a solver ended.

  Attributes:
    steps: products with the matrix, but for those that judge the answer.
    residual: norm of the true residual `b - A x`.
    converged: the residual is within the tolerance; False too if it is NaN.
    indefinite: a direction `v` with `v^T A v <= 0` was met.
  """

  steps: jax.Array
  residual: jax.Array
  converged: jax.Array
  indefinite: jax.Array


def conjugate_gradient(
  matvec: Matvec,
  b: Vector,
  *,
  tolerance: float | jax.Array = 1e-5,
  max_steps: int = 100,
  preconditioner: Matvec | None = None,
  inner: Inner = optax.tree.vdot,
) -> tuple[Vector, SolveInfo]:
  """Solves `A x = b` for a symmetric positive definite `A`.

  Stops at `|b - A x| <= tolerance |b|`, after `max_steps`, or at a direction of
  no positive curvature, where it returns the solution over the directions
  before (zero if there were none).

  Args:
    matvec: product with `A`.
    b: right side.
    tolerance: relative residual, above 0. Rounding bounds what is reachable.
    max_steps: most products with `A`, at least 1.
    preconditioner: product with an approximation of the inverse of `A`,
      symmetric positive definite.
    inner: inner product of two vectors.

  Returns:
    `x`, a pytree like `b`, and a `SolveInfo`.

  Raises:
    ValueError: if `max_steps` is below 1.
  """
  validate.at_least(1, max_steps=max_steps)
  precondition = preconditioner or (lambda r: r)
  target = _cast_like(tolerance, norm(b, inner)) * norm(b, inner)

  def goes_on(state):
    _, r, _, _, steps, indefinite = state
    return (norm(r, inner) > target) & (steps < max_steps) & ~indefinite

  def step(state):
    x, r, direction, rz, steps, _ = state
    product = matvec(direction)
    curvature = inner(direction, product)
    indefinite = curvature <= 0
    length = jnp.where(indefinite, 0, rz / jnp.where(indefinite, 1, curvature))
    x = add_scaled(x, length, direction)
    r = add_scaled(r, -length, product)
    z = precondition(r)
    next_rz = inner(r, z)
    direction = add_scaled(z, next_rz / rz, direction)
    return x, r, direction, next_rz, steps + 1, indefinite

  z = precondition(b)
  zero, begun, unknown = optax.tree.zeros_like(b), jnp.int32(0), jnp.bool(False)
  start = (zero, b, z, inner(b, z), begun, unknown)
  x, _, _, _, steps, indefinite = jax.lax.while_loop(goes_on, step, start)
  residual = norm(optax.tree.sub(b, matvec(x)), inner)
  return x, SolveInfo(steps, residual, residual <= target, indefinite)


def norm(v: Vector, inner: Inner = optax.tree.vdot) -> jax.Array:
  """Norm of a vector under an inner product."""
  return jnp.sqrt(inner(v, v))


def add_scaled(x: Vector, scale: float | jax.Array, y: Vector) -> Vector:
  """`x + scale y`, in the dtypes of `x`."""
  return jax.tree.map(lambda a, b: a + _cast_like(scale, a) * b, x, y)


def _cast_like(value, other):
  return jnp.asarray(value).astype(other.dtype)
