"""Linear systems and eigenvalues through products with a matrix alone.

Failure is a value: solvers return what they reached and a `SolveInfo` whose
residual was computed from the answer, not carried along by the recursion.
`inner` is the inner product of two vectors. Where a vector is divided over
mapped axes (a client each, say), pass one that adds up over them, and all parts
take the same steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn.curvature.hvp import Matvec

Inner = Callable[[Any, Any], jax.Array]


class SolveInfo(NamedTuple):
  """How a solver ended.

  Attributes:
    steps: products with the matrix, but for those that judge the answer.
    residual: norm of the true residual: `b - A x` of a system, `A v - value v`
      of an eigenvalue.
    converged: the residual is within the tolerance; False too if it is NaN.
    indefinite: a direction `v` with `v^T A v <= 0` was met.
  """

  steps: jax.Array
  residual: jax.Array
  converged: jax.Array
  indefinite: jax.Array


def conjugate_gradient(
  matvec: Matvec,
  b: Any,
  *,
  tolerance: float | jax.Array = 1e-5,
  max_steps: int = 100,
  preconditioner: Matvec | None = None,
  inner: Inner = optax.tree.vdot,
) -> tuple[Any, SolveInfo]:
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
  _check_steps("conjugate_gradient", max_steps=max_steps)
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


def neumann(
  matvec: Matvec,
  b: Any,
  *,
  scale: float | jax.Array,
  num_steps: int,
  sampled: Callable[[jax.Array, Any], Any] | None = None,
  tolerance: float | jax.Array = 1e-5,
  inner: Inner = optax.tree.vdot,
) -> tuple[Any, SolveInfo]:
  """Solves `A x = b` by the Neumann series of the inverse (LiSSA).

      x_0 = scale b,    x_{k+1} = x_k + scale (b - A x_k)

  Args:
    matvec: product with `A`; also judges the answer.
    b: right side.
    scale: above 0 and below `2 / lambda_max(A)`, or the series diverges.
    num_steps: terms after the first, at least 0; a step costs one product.
    sampled: `(step, v) -> A_step v`, an unbiased estimate of `A v` that takes
      its place in the series: from one batch a step, say.
    tolerance: relative residual at which it has converged.
    inner: inner product of two vectors.

  Returns:
    `x`, a pytree like `b`, and a `SolveInfo`.

  **Guarantees**: for symmetric positive definite `A`, without `sampled`,
  `|b - A x_k| <= max_i |1 - scale lambda_i|^(k+1) |b|`.

  Source: N. Agarwal et al., "Second-order stochastic optimization for machine
  learning in linear time", 2017, arXiv 1602.03943.
  """
  product = sampled or (lambda _, v: matvec(v))
  size = norm(b, inner)

  def step(index, state):
    x, indefinite = state
    image = product(index, x)
    indefinite |= (inner(x, image) <= 0) & (size > 0)
    return add_scaled(x, scale, optax.tree.sub(b, image)), indefinite

  start = add_scaled(optax.tree.zeros_like(b), scale, b), jnp.bool(False)
  x, indefinite = jax.lax.fori_loop(0, num_steps, step, start)
  residual = norm(optax.tree.sub(b, matvec(x)), inner)
  converged = residual <= _cast_like(tolerance, size) * size
  return x, SolveInfo(jnp.int32(num_steps), residual, converged, indefinite)


def power_iteration(
  key: jax.Array,
  matvec: Matvec,
  like: Any,
  *,
  tolerance: float | jax.Array = 1e-3,
  max_steps: int = 100,
  inner: Inner = optax.tree.vdot,
) -> tuple[tuple[jax.Array, Any], SolveInfo]:
  """The eigenvalue of largest magnitude of a symmetric `A`, and its vector.

      v <- A v / |A v|,    value = v^T A v,    until |A v - value v| is small

  Args:
    key: draws the first vector.
    matvec: product with `A`.
    like: a pytree of the vectors' structure, shapes and dtypes.
    tolerance: residual relative to the value.
    max_steps: most products, at least 1.
    inner: inner product of two vectors.

  Returns:
    `(value, vector of norm 1)` and a `SolveInfo`.

  Raises:
    ValueError: if `max_steps` is below 1.

  **Guarantees**: an eigenvalue lies within `info.residual` of the value; that
  it is the largest holds for almost every start, after enough steps.
  """
  _check_steps("power_iteration", max_steps=max_steps)

  def look(v, steps):
    v = optax.tree.scale(1 / norm(v, inner), v)
    image = matvec(v)
    value = inner(v, image)
    residual = norm(add_scaled(image, -value, v), inner)
    converged = residual <= _cast_like(tolerance, value) * jnp.abs(value)
    info = SolveInfo(steps, residual, converged, value <= 0)
    return value, v, image, info

  def goes_on(state):
    info = state[-1]
    return ~info.converged & (info.steps < max_steps)

  value, v, _, info = jax.lax.while_loop(
    goes_on,
    lambda state: look(state[2], state[3].steps + 1),
    look(optax.tree.random_like(key, like), jnp.int32(1)),
  )
  return (value, v), info


def norm(v: Any, inner: Inner = optax.tree.vdot) -> jax.Array:
  """Norm of a vector under an inner product."""
  return jnp.sqrt(inner(v, v))


def add_scaled(x: Any, scale: Any, y: Any) -> Any:
  """`x + scale y`, in the dtypes of `x`."""
  return jax.tree.map(lambda a, b: a + _cast_like(scale, a) * b, x, y)


def _cast_like(value, other):
  return jnp.asarray(value).astype(other.dtype)


def _check_steps(name, **steps):
  for argument, value in steps.items():
    if value < 1:
      raise ValueError(f"{name}: {argument} is {value}; it must be at least 1.")
