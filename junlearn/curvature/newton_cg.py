"""Newton's method on a gradient, each step solved by conjugate gradients."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import validate
from junlearn.curvature.hvp import Matvec
from junlearn.curvature.solve import (
  Inner,
  SolveInfo,
  add_scaled,
  conjugate_gradient,
  norm,
)
from junlearn.typing import Vector


class NewtonInfo(NamedTuple):
  """How Newton's method went.

  Attributes:
    steps: scalar, steps taken.
    residual: scalar, `|gradient(x)|` of the `x` returned.
    converged: scalar bool, the residual is at most the target.
    residuals: `[num_steps + 1]`, `|gradient|` after each number of steps; the
      last one again for steps not taken.
    lengths: `[num_steps]`, the fraction of each Newton step that was taken: 1,
      or less by backtracking; 0 where no fraction lowered the residual, and for
      steps not taken.
    solves: `SolveInfo` `[num_steps]`; its residual is `|gradient + H d|` of
      the whole step `d`. Zeros for steps not taken.
  """

  steps: jax.Array
  residual: jax.Array
  converged: jax.Array
  residuals: jax.Array
  lengths: jax.Array
  solves: SolveInfo


def newton(
  gradient: Callable[[Vector], Vector],
  operator: Callable[[Vector], Matvec],
  x: Vector,
  *,
  num_steps: int,
  target: float | jax.Array = 0.0,
  tolerance: float | jax.Array = 1e-3,
  max_steps: int = 100,
  max_halvings: int = 10,
  preconditioner: Matvec | None = None,
  inner: Inner = optax.tree.vdot,
) -> tuple[Vector, NewtonInfo]:
  """Solves `gradient(x) = 0`.

      x <- x + t d,    operator(x) d = -gradient(x),    t = 1, 1/2, 1/4, ...

  The first `t` at which `|gradient|` falls is taken. It stops where the
  residual is at most the target, and where no `t` makes it fall (at the limit
  of the precision, or where the curvature is not positive).

  Args:
    gradient: of what is minimized, at `x`.
    operator: `x -> Matvec`: the Hessian at `x`, or what stands for it.
    x: where to begin.
    num_steps: most Newton steps, at least 1.
    target: `|gradient|` that is low enough, at least 0.
    tolerance: relative residual of each linear solve; the residual falls about
      by this factor a step once Newton's method converges quadratically.
    max_steps: most products with the operator in each solve.
    max_halvings: most halvings of `t` in each step.
    preconditioner: of each solve, see `conjugate_gradient`.
    inner: inner product of two vectors, see `junlearn.curvature.solve`.

  Returns:
    The `x` of the lowest residual met, and a `NewtonInfo`.

  Raises:
    ValueError: if `num_steps` or `max_steps` is below 1.

  **Guarantees**: the residuals never rise, and `info.residual` is computed
  from the `x` returned.
  """
  validate.at_least(1, num_steps=num_steps)

  def take(carry):
    x, g, residual, _ = carry
    d, solve = conjugate_gradient(
      operator(x),
      optax.tree.scale(-1, g),
      tolerance=tolerance,
      max_steps=max_steps,
      preconditioner=preconditioner,
      inner=inner,
    )

    def shorten(trial):
      halvings, *_ = trial
      length = jnp.exp2(-halvings.astype(residual.dtype))
      moved = add_scaled(x, length, d)
      slope = gradient(moved)
      return halvings + 1, length, moved, slope, norm(slope, inner)

    def too_long(trial):
      halvings, _, _, _, reached = trial
      return ~(reached < residual) & (halvings <= max_halvings)

    _, length, moved, slope, reached = jax.lax.while_loop(
      too_long, shorten, (jnp.int32(0), residual, x, g, residual)
    )
    falls = reached < residual
    kept = jax.tree.map(
      lambda new, old: jnp.where(falls, new, old),
      (moved, slope, reached),
      (x, g, residual),
    )
    return (*kept, ~falls), (jnp.where(falls, length, 0), solve)

  def step(carry, _):
    _, _, residual, stalled = carry
    done = stalled | (residual <= target)
    untouched = jax.eval_shape(take, carry)[1]
    carry, info = jax.lax.cond(
      done,
      lambda carry: (carry, optax.tree.zeros_like(untouched)),
      take,
      carry,
    )
    return carry, (carry[2], *info)

  g = gradient(x)
  first = norm(g, inner)
  (x, _, residual, _), (residuals, lengths, solves) = jax.lax.scan(
    step, (x, g, first, jnp.asarray(False)), length=num_steps
  )
  return x, NewtonInfo(
    steps=jnp.sum(lengths > 0),
    residual=residual,
    converged=residual <= target,
    residuals=jnp.concatenate([first[None], residuals]),
    lengths=lengths,
    solves=solves,
  )
