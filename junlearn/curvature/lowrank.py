"""Inverses of matrices of low rank plus a multiple of the identity."""

import jax
import jax.numpy as jnp
import optax
from jax.scipy import linalg

from junlearn.curvature.average import weights
from junlearn.curvature.hvp import damped
from junlearn.curvature.solve import SolveInfo, add_scaled, norm
from junlearn.loss import Loss
from junlearn.typing import Examples, Params, Vector


def woodfisher(
  loss: Loss,
  params: Params,
  examples: Examples,
  b: Vector,
  *,
  damping: float | jax.Array,
  tolerance: float | jax.Array = 1e-4,
) -> tuple[Vector, SolveInfo]:
  """Solves `(F + damping I) x = b` for the empirical Fisher of few examples.

      F = G^T G / n,    G [n, params] the examples' gradients
      x = (b - G^T (n damping I + G G^T)^{-1} G b) / damping

  the Woodbury identity, which the WoodFisher recursion applies a row at a
  time. Memory: `n` times the params, and an `[n, n]` matrix.

  Args:
    loss: per-example loss, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    b: right side, a pytree like the params.
    damping: multiple of the identity, above 0.
    tolerance: relative residual at which it has converged; rounding is about
      the dtype's epsilon times `lambda_max(F) / damping`.

  Returns:
    `x`, a pytree like `b`, and a `SolveInfo` of no steps.

  Source: S. P. Singh, D. Alistarh, "WoodFisher: Efficient Second-Order
  Approximation for Neural Network Compression", 2020, arXiv 2004.14340.
  """

  def gradient(example):
    return jax.grad(lambda p: jnp.sum(loss(p, example)[0]))(params)

  single = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], examples)
  if jax.default_backend() == "cpu":  # convolutions under vmap are slow there
    rows = jax.lax.map(gradient, single)
  else:
    rows = jax.vmap(gradient)(single)
  weight = weights(examples)
  # Scaled so that G^T G is the weighted mean.
  scale = jnp.sqrt(weight / jnp.maximum(jnp.sum(weight), 1))
  rows = jax.vmap(add_scaled)(optax.tree.zeros_like(rows), scale, rows)

  def project(v):
    return jax.vmap(optax.tree.vdot, (0, None))(rows, v)

  def combine(c):
    return jax.tree.map(lambda g: jnp.tensordot(c.astype(g.dtype), g, 1), rows)

  gram = jax.vmap(project)(rows)
  ridge = jnp.asarray(damping).astype(gram.dtype)
  factor = linalg.cho_factor(
    gram + ridge * jnp.eye(len(gram), dtype=gram.dtype)
  )

  def inverse(v):
    part = combine(linalg.cho_solve(factor, project(v)))
    return optax.tree.scale(1 / ridge, optax.tree.sub(v, part))

  def missing(x):
    return optax.tree.sub(b, damped(combine(project(x)), damping, x))

  x = inverse(b)
  # Where the damping is small, one refinement undoes most of the rounding.
  x = optax.tree.add(x, inverse(missing(x)))
  residual = norm(missing(x))
  target = jnp.asarray(tolerance).astype(residual.dtype) * norm(b)
  return x, SolveInfo(
    jnp.int32(0), residual, residual <= target, jnp.bool(False)
  )
