"""What double precision may have done to a gradient that was measured.

With `m = A |w| + beta` the moduli of what the outputs are summed from
(`magnitude`), the error of the gradient of the mean loss is at most about
(`certify`, lemma 9)

    k u mean_i |A_i| (1 + |d_i| + c_i |m_i|) + k u l2 |w|,

d_i being the derivative at the outputs, the 1 its own rounding, c_i the second
derivative there (at most 1 for softmax), and k no more than examples and
parameters together.
"""

import jax
import jax.numpy as jnp
import optax

from junlearn import objective, tree
from junlearn.certify import magnitude
from junlearn.loss import OutputLoss, softmax_cross_entropy
from junlearn.model import Model
from junlearn.typing import Examples, Params

_UNIT = 2.0**-52  # twice u: k u / (1 - k u) is below for all that fits memory
_BATCH = 64  # examples at a time
# Squares of smaller numbers vanish from a norm.
_UNDERFLOW = 1e-150


def gradient_error(
  model: Model,
  output_loss: OutputLoss,
  params: Params,
  examples: Examples,
  *,
  l2: float,
) -> jax.Array:
  """Allowance for rounding in the gradient of the mean loss and the penalty.

  `|A_i|` is the Frobenius norm, at the cost of a backward pass for each output.

  Args:
    model: affine in its params, in evaluation mode.
    output_loss: `(outputs, examples) -> [n]`, convex in the outputs.
    params: float64.
    examples: `[n, ...]`; absent ones (`weight` 0) do not count.
    l2: of the penalty.

  Returns:
    A scalar in the units of the gradient.
  """
  length = optax.tree.norm(params)

  def one(example):
    single = jax.tree.map(lambda leaf: leaf[None], example)
    outputs = model.apply(params, single["input"])[0]
    moduli = magnitude.outputs(model, params, single["input"])
    terms, pull = jax.vjp(moduli, jax.tree.map(jnp.abs, params))

    def value(outputs):
      return jnp.sum(output_loss(outputs, single))

    slope = optax.tree.norm(jax.grad(value)(outputs))
    spread = _frobenius(pull, outputs)
    bend = jnp.ones_like(slope)
    if output_loss is not softmax_cross_entropy:
      bend = jnp.maximum(optax.tree.norm(jax.hessian(value)(outputs)), bend)
    return spread * (1 + slope + bend * optax.tree.norm(terms))

  scales = jax.lax.map(one, examples, batch_size=_BATCH)
  terms = tree.size(examples) + sum(x.size for x in jax.tree.leaves(params))
  found = _UNIT * terms * (objective.mean(scales, examples) + l2 * length)
  return found + _UNDERFLOW


def _frobenius(pull, outputs):
  """Of a Jacobian, row by row: all at once may not fit the memory."""

  def square(index):
    row = jnp.zeros(outputs.size, outputs.dtype).at[index].set(1)
    return optax.tree.norm(pull(row.reshape(outputs.shape))[0], squared=True)

  return jnp.sqrt(jnp.sum(jax.lax.map(square, jnp.arange(outputs.size))))
