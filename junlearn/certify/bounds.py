"""How far a model is from exact retraining: one theorem a function.

    F(w) = mean over S of ell(w, z) + l2/2 |w|^2       before the deletion
    F'   = the same over S without U,  w' = argmin F'  after it

All norms are Euclidean, over all parameters at once (Frobenius for stacked
clients). `F'` must be `l2`-strongly convex, which a convex `ell` and a penalty
on all parameters give. The functions take floats and traced scalars alike.
Floats out of range raise `ValueError`.

`certify` has the lemmas. Where a constant differs from a paper's, the text says
so.
"""

from typing import Any

import jax
import jax.numpy as jnp

from junlearn import validate

Scalar = float | jax.Array


def residual(
  gradient_norm: Scalar, *, l2: Scalar, gradient_error: Scalar = 0.0
) -> Scalar:
  """Distance by the gradient left: `|w - w'| <= |grad F'(w)| / l2`.

  Args:
    gradient_norm: `|grad F'(w)|`, measured over all retained examples.
    l2: strong convexity of `F'`, above 0.
    gradient_error: what rounding may have done to the gradient measured, at
      least 0 (`rounding`); it is added to the norm.

  Returns:
    A bound on `|w - w'|`.

  **Guarantees**: for every `w`, however it was found. Assumes that `F'` is
  differentiable and `l2`-strongly convex; neither a Hessian nor its Lipschitz
  constant is used.
  """
  _check_not_negative(
    gradient_norm=gradient_norm, gradient_error=gradient_error
  )
  validate.positive(l2=l2)
  return (gradient_norm + gradient_error) / l2


def fixed_point_residual(
  residual_norm: Scalar, *, contraction: Scalar, residual_error: Scalar = 0.0
) -> Scalar:
  """Distance by one more round: `|X - X'| <= |T(X) - X| / (1 - kappa)`.

  Args:
    residual_norm: `|T(X) - X|` for the round `T` on the retained data.
    contraction: Lipschitz constant `kappa` of `T`, in [0, 1).
    residual_error: what rounding may have done to the residual measured, at
      least 0 (`rounding`); it is added to the norm.

  Returns:
    A bound on the distance from `X` to the fixed point `X' = T(X')`, which is
    what retraining by the same rounds converges to; infinite where a traced
    `contraction` is not below 1.

  **Guarantees**: for every `X` (Banach). Assumes that `T` is a
  `kappa`-contraction on all of the space.
  """
  _check_not_negative(
    residual_norm=residual_norm,
    contraction=contraction,
    residual_error=residual_error,
  )
  if not _is_traced(contraction) and contraction >= 1:
    raise ValueError(
      f"contraction is {contraction}; it must be below 1: take a smaller step."
    )
  bound = (residual_norm + residual_error) / (1 - contraction)
  if _is_traced(contraction):
    return jnp.where(contraction < 1, bound, jnp.inf)
  return bound


def mixing_contraction(
  *,
  step_size: Scalar,
  l2: Scalar,
  smoothness: Scalar,
  smallest_eigenvalue: Scalar,
) -> Scalar:
  """Contraction of `T(X) = Q X - gamma grad F(X)`, one step a round.

      kappa = max(|1 - gamma l2|, |a - gamma beta|)

  Args:
    step_size: `gamma`, above 0.
    l2: smallest eigenvalue of any client's Hessian, above 0.
    smoothness: largest one, `beta`, penalty included; under sample weighting
      that of the client whose loss is scaled most.
    smallest_eigenvalue: `a` of the mixing matrix, in [-1, 1].

  **Guarantees**: `|T(X) - T(Y)| <= kappa |X - Y|`, since `T` has a symmetric
  derivative with eigenvalues in `[a - gamma beta, 1 - gamma l2]`. Assumes a
  symmetric, doubly stochastic `Q`. Below 1 if and only if
  `gamma beta < 1 + a` (for `gamma l2 < 2`).
  """
  validate.positive(step_size=step_size, l2=l2, smoothness=smoothness)
  return _maximum(
    abs(1 - step_size * l2), abs(smallest_eigenvalue - step_size * smoothness)
  )


def local_contraction(
  *,
  step_size: Scalar,
  l2: Scalar,
  smoothness: Scalar,
  num_local_steps: int,
) -> Scalar:
  """Contraction of `T(X) = Q LocalGD(X)`, `tau` local steps, then mixing.

      kappa = max(|1 - gamma l2|, |1 - gamma beta|)^tau

  Args:
    step_size: `gamma`, above 0.
    l2: smallest eigenvalue of any client's Hessian, above 0.
    smoothness: largest one, `beta`, penalty included; under sample weighting
      that of the client whose loss is scaled most.
    num_local_steps: `tau`, at least 1.

  **Guarantees**: `|T(X) - T(Y)| <= kappa |X - Y|`: a gradient step contracts
  by the maximum, and mixing does not expand. Assumes a doubly stochastic `Q`.
  """
  validate.positive(step_size=step_size, l2=l2, smoothness=smoothness)
  validate.positive(num_local_steps=num_local_steps)
  one_step = _maximum(abs(1 - step_size * l2), abs(1 - step_size * smoothness))
  return one_step**num_local_steps


def newton_step(
  gradient_norm: Scalar, *, l2: Scalar, hessian_lipschitz: Scalar
) -> Scalar:
  """Distance after one exact Newton step from `w`.

      |w - H^-1 g - w'| <= M / (2 l2) |w - w'|^2 <= M |g|^2 / (2 l2^3)

  Args:
    gradient_norm: `|g|` with `g = grad F'(w)`, before the step.
    l2: strong convexity of `F'`, above 0.
    hessian_lipschitz: `M`, at least 0, of the Hessian of `F'` in the spectral
      norm.

  **Guarantees**: for every `w`. Assumes `H = Hess F'(w)` solved exactly.
  """
  _check_not_negative(
    gradient_norm=gradient_norm, hessian_lipschitz=hessian_lipschitz
  )
  validate.positive(l2=l2)
  return hessian_lipschitz * gradient_norm**2 / (2 * l2**3)


def inexact_newton_step(
  gradient_norm: Scalar,
  solve_residual: Scalar,
  *,
  l2: Scalar,
  hessian_lipschitz: Scalar,
) -> Scalar:
  """Distance after a step `w - p` whose `p` solves `H p = g` only nearly.

      |w - p - w'| <= M |g|^2 / (2 l2^3) + |g - H p| / l2

  Args:
    gradient_norm: `|g|` with `g = grad F'(w)`, before the step.
    solve_residual: `|g - H p|`, measured by one Hessian-vector product; it
      covers inexact solves, Fisher matrices and sparse approximations alike.
    l2: strong convexity of `F'`, above 0.
    hessian_lipschitz: `M`, as in `newton_step`.

  **Guarantees**: for every `w` and `p`.
  """
  _check_not_negative(solve_residual=solve_residual)
  exact = newton_step(gradient_norm, l2=l2, hessian_lipschitz=hessian_lipschitz)
  return exact + solve_residual / l2


def a_priori(
  num_removed: Scalar,
  num_examples: Scalar,
  *,
  l2: Scalar,
  optimum_gradient: Scalar,
  hessian_lipschitz: Scalar,
  training_residual: Scalar = 0.0,
  solve_error: Scalar = 0.0,
) -> Scalar:
  """Distance after one Newton step, from public constants alone.

      M / (2 l2^3) (r + m L / n)^2 + eta / l2

  Args:
    num_removed: `m`, at most `n`.
    num_examples: `n`, before the deletion.
    l2: strong convexity of `F` and `F'`, above 0.
    optimum_gradient: `L`, a bound on `|grad ell(w', z) + l2 w'|` over all
      examples (`constants`).
    hessian_lipschitz: `M`, as in `newton_step`.
    training_residual: `r`, at least `|grad F(w)|` of the trained model.
    solve_error: `eta`, at least `|g - H p|` for the step `p` taken.

  **Guarantees**: for every data set within the constants, if `r` and `eta`
  hold for it (`certify`, lemma 2). Every example has the same weight in `F`.
  """
  _check_removed(num_removed, num_examples)
  _check_not_negative(optimum_gradient=optimum_gradient)
  return _from_public_constants(
    num_removed * optimum_gradient / num_examples,
    l2,
    hessian_lipschitz,
    training_residual,
    solve_error,
  )


def stacked_a_priori(
  num_removed: Scalar,
  num_examples: Scalar,
  *,
  l2: Scalar,
  gradient: Scalar,
  hessian_lipschitz: Scalar,
  training_residual: Scalar = 0.0,
  solve_error: Scalar = 0.0,
) -> Scalar:
  """`a_priori` for decentralised training, jointly over all clients.

      Psi(X) = sum_i F_i(x_i) + <X, (I - Q) X> / (2 gamma)
      M / (2 l2^3) (r + 2 B m / n_u)^2 + eta / l2

  Args:
    num_removed: `m` examples of the one client `u`, at most `n_u`.
    num_examples: `n_u`, that client's examples before the deletion.
    l2: strong convexity of every `F_i`, above 0.
    gradient: `B`, a bound on `|grad ell|` without the penalty.
    hessian_lipschitz: `M` of every `F_i`.
    training_residual: `r`, at least `|grad Psi(X)| = |X - T(X)| / gamma`.
    solve_error: `eta`, at least the residual of the stacked linear system.

  **Guarantees**: for every data set within the constants, if `r` and `eta`
  hold for it. Retraining is training by the same rounds without U. Assumes
  uniform weighting (`F_i` is a mean over the client's examples), one step a
  round, a graph that the deletion leaves as it is and a symmetric, doubly
  stochastic `Q`.
  """
  _check_removed(num_removed, num_examples)
  _check_not_negative(gradient=gradient)
  return _from_public_constants(
    2 * num_removed * gradient / num_examples,
    l2,
    hessian_lipschitz,
    training_residual,
    solve_error,
  )


def sekhari(
  num_removed: Scalar,
  num_examples: Scalar,
  *,
  l2: Scalar,
  optimum_gradient: Scalar,
  hessian_lipschitz: Scalar,
) -> Scalar:
  """The published bound `2 M m^2 L^2 / (l2^3 n^2)` on one exact Newton step.

  Four times `a_priori` with `r = eta = 0`, which needs no more assumptions;
  kept for comparison. Arguments as there.

  Source: A. Sekhari, J. Acharya, G. Kamath, A. T. Suresh, "Remember What You
  Want to Forget", arXiv 2103.03279.
  """
  return 4 * a_priori(
    num_removed,
    num_examples,
    l2=l2,
    optimum_gradient=optimum_gradient,
    hessian_lipschitz=hessian_lipschitz,
  )


def guo(
  step_norm: Scalar,
  projected_step_norm: Scalar,
  spectral_norm: Scalar,
  *,
  lipschitz: Scalar,
  input_norm: Scalar,
) -> Scalar:
  """Gradient that one removal leaves in a linear model, loss in sum form.

      |grad G'(w + p) - (grad G'(w) + H p)|
        <= gamma/2 max|x| |p| |X p| ||X||_2,
      G' = sum over the n retained of ell(w.x, y) + n l2/2 |w|^2

  With `p = H^-1 g` and `g` the removed examples' gradients in `G`, the bracket
  is the gradient that stood before the removal, so bounds of successive
  removals add. `residual(sum of bounds, l2=n * l2)` is the distance.

  Args:
    step_norm: `|p|`, at least 0.
    projected_step_norm: `|X p|` over the retained inputs.
    spectral_norm: an upper bound on `||X||_2` of the retained inputs. Power
      iteration approaches it from below, which is not a bound; the Frobenius
      norm is.
    lipschitz: `gamma`, of `ell''` in the score: 1 / (6 sqrt 3) for logistic.
    input_norm: `max |x|`.

  **Guarantees**: for every `w` and `p`, for one score a linear model gives.
  The paper states it without the 1/2 and for `|x| <= 1`, and uses 1/4 for the
  logistic loss.

  Source: C. Guo, T. Goldstein, A. Hannun, L. van der Maaten, "Certified Data
  Removal from Machine Learning Models", arXiv 1911.03030.
  """
  _check_not_negative(
    step_norm=step_norm,
    projected_step_norm=projected_step_norm,
    spectral_norm=spectral_norm,
    lipschitz=lipschitz,
    input_norm=input_norm,
  )
  per_example = lipschitz * input_norm * step_norm / 2
  return per_example * projected_step_norm * spectral_norm


def _from_public_constants(
  shift, l2, hessian_lipschitz, training_residual, solve_error
):
  """The step from `w` with `|w - w'| <= (r + shift) / l2`."""
  _check_not_negative(training_residual=training_residual)
  return inexact_newton_step(
    training_residual + shift,
    solve_error,
    l2=l2,
    hessian_lipschitz=hessian_lipschitz,
  )


def _is_traced(value: Any) -> bool:
  return isinstance(value, jax.core.Tracer)


def _maximum(a: Any, b: Any) -> Scalar:
  if isinstance(a, jax.Array) or isinstance(b, jax.Array):
    return jnp.maximum(a, b)
  return max(a, b)


def _check_removed(num_removed, num_examples):
  validate.positive(num_removed=num_removed, num_examples=num_examples)
  if _is_traced(num_removed) or _is_traced(num_examples):
    return
  if num_removed > num_examples:
    raise ValueError(
      f"num_removed is {num_removed}; it must be at most {num_examples}, the "
      "number of examples."
    )


def _check_not_negative(**values):
  for name, value in values.items():
    # A measured number may be NaN: no bound then holds, and none is claimed.
    if not _is_traced(value) and value < 0:
      raise ValueError(f"{name} is {value}; it must be at least 0.")
