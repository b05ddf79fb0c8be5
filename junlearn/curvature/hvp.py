"""Products of curvature matrices with vectors, never the matrices.

    Matvec: v -> A v, pytrees of the params' structure

Every matrix is a mean over examples plus `damping` times the identity. The
vectors have one leaf for each leaf of the params, all of them floating: of
params that hold state, pass the free part of a view.

Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994;
N. Schraudolph, "Fast curvature matrix-vector products", 2002.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from junlearn.curvature.average import AxisName, average
from junlearn.loss import Loss, OutputLoss, softmax_cross_entropy
from junlearn.model import Model
from junlearn.typing import Batch, Examples, Params, Vector

Matvec = Callable[[Vector], Vector]


def gradient(
  loss: Loss,
  params: Params,
  examples: Examples,
  *,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Vector:
  """Gradient of the mean loss; a pytree like the params.

  Args:
    loss: per-example loss, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.
  """
  return average(
    lambda batch, weight: jax.grad(_total(loss, batch, weight))(params),
    examples,
    batch_size=batch_size,
    axis_name=axis_name,
  )


def hessian(
  loss: Loss,
  params: Params,
  examples: Examples,
  *,
  damping: float | jax.Array = 0.0,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Matvec:
  """Hessian of the mean loss: `v -> (d^2 mean l / d params^2) v + damping v`.

  Forward over reverse: one product costs about two gradients.

  Args:
    loss: per-example loss, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    damping: multiple of the identity, at least 0.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.
  """

  def matvec(v):
    def product(batch, weight):
      grad = jax.grad(_total(loss, batch, weight))
      return jax.jvp(grad, (params,), (v,))[1]

    mean = average(
      product, examples, batch_size=batch_size, axis_name=axis_name
    )
    return damped(mean, damping, v)

  return matvec


def gauss_newton(
  model: Model,
  params: Params,
  examples: Examples,
  *,
  output_loss: OutputLoss = softmax_cross_entropy,
  damping: float | jax.Array = 0.0,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Matvec:
  """Generalized Gauss-Newton matrix: `v -> mean J^T B J v + damping v`.

  `J` is the Jacobian of an example's outputs by the params, `B` the Hessian
  of its loss by the outputs.

  Args:
    model: gives outputs `[n, ...]`, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    output_loss: `(outputs, examples) -> [n]`, convex in the outputs.
    damping: multiple of the identity, at least 0.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.

  **Guarantees**: positive semi-definite where `output_loss` is convex in the
  outputs; equal to the Hessian where the outputs are linear in the params.
  """

  def curve(outputs, batch, u):
    grad = jax.grad(lambda z: jnp.sum(output_loss(z, batch)))
    return jax.jvp(grad, (outputs,), (u,))[1]

  return sandwich(
    lambda params, batch: model.apply(params, batch["input"])[0],
    curve,
    params,
    examples,
    damping=damping,
    batch_size=batch_size,
    axis_name=axis_name,
  )


def sandwich(
  function: Callable[[Params, Batch], jax.Array],
  curve: Callable[[jax.Array, Batch, jax.Array], jax.Array],
  params: Params,
  examples: Examples,
  *,
  damping: float | jax.Array = 0.0,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Matvec:
  """`v -> mean J^T B J v + damping v` for any function and any `B`.

  Args:
    function: `(params, batch) -> [b, ...]`; `J` is its Jacobian.
    curve: `(values, batch, u) -> B u`, example by example.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    damping: multiple of the identity, at least 0.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.
  """

  def matvec(v):
    def product(batch, weight):
      values, push = jax.linearize(lambda p: function(p, batch), params)
      u = curve(values, batch, push(v))
      weight = weight.reshape(-1, *(1,) * (u.ndim - 1)).astype(u.dtype)
      (result,) = jax.linear_transpose(push, params)(weight * u)
      return result

    mean = average(
      product, examples, batch_size=batch_size, axis_name=axis_name
    )
    return damped(mean, damping, v)

  return matvec


def damped(product: Vector, damping: float | jax.Array, v: Vector) -> Vector:
  """`product + damping v`, in the dtypes of the product."""
  return jax.tree.map(
    lambda a, b: a + jnp.asarray(damping).astype(a.dtype) * b, product, v
  )


def _total(loss, batch, weight):
  def total(params):
    losses, _ = loss(params, batch)
    return jnp.sum(weight.astype(losses.dtype) * losses)

  return total
