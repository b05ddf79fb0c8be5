"""Fisher information of a classifier, as products and as a diagonal.

    F = mean_x sum_y p(y|x) g_y g_y^T,    g_y = d l(f(x), y) / d params

with `l` the cross-entropy and `p` the model's own probabilities. The
empirical Fisher takes the label of the data in the place of the sum.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from junlearn import tree, validate
from junlearn.curvature.average import AxisName, average
from junlearn.curvature.hvp import Matvec, gauss_newton, sandwich
from junlearn.loss import Loss
from junlearn.model import Model
from junlearn.typing import Examples, Params

Labels = Literal["expected", "observed"]


def fisher(
  model: Model,
  params: Params,
  examples: Examples,
  *,
  damping: float | jax.Array = 0.0,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Matvec:
  """The Fisher matrix of the categorical with the model's logits.

      v -> mean J^T (diag(p) - p p^T) J v + damping v

  Exact, with no labels drawn or read: `diag(p) - p p^T` is the Hessian of the
  log-partition function.

  Args:
    model: gives logits `[n, classes]`, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    damping: multiple of the identity, at least 0.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.
  """
  return gauss_newton(
    model,
    params,
    examples,
    output_loss=lambda logits, _: jax.nn.logsumexp(logits, axis=-1),
    damping=damping,
    batch_size=batch_size,
    axis_name=axis_name,
  )


def empirical_fisher(
  loss: Loss,
  params: Params,
  examples: Examples,
  *,
  damping: float | jax.Array = 0.0,
  batch_size: int | None = None,
  axis_name: AxisName = None,
) -> Matvec:
  """The mean outer product of gradients, `v -> mean g (g^T v) + damping v`.

  Exact per example, by one forward and one reverse product of the losses.

  Args:
    loss: per-example loss, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    damping: multiple of the identity, at least 0.
    batch_size: examples a batch; None takes all at once.
    axis_name: mapped axes over which the examples are divided.
  """
  return sandwich(
    lambda params, batch: loss(params, batch)[0],
    lambda losses, batch, u: u,
    params,
    examples,
    damping=damping,
    batch_size=batch_size,
    axis_name=axis_name,
  )


def diagonal_fisher(
  model: Model,
  params: Params,
  examples: Examples,
  *,
  labels: Labels = "expected",
  block_size: int | None = None,
  axis_name: AxisName = None,
) -> Params:
  """The diagonal of the Fisher matrix, exact per example.

      F_j = mean_x sum_y p(y|x) (g_y)_j^2

  Squares of the gradients of batch means are no substitute: they are too small
  by about the batch size.

  Args:
    model: gives logits `[n, classes]`, evaluated without a key.
    params: where.
    examples: `n` examples; `weight` `[n]` counts as in `average`.
    labels: "expected" sums over the labels as the model expects them,
      "observed" takes those of the data.
    block_size: examples whose gradients are held at once; None means 1 on CPU,
      whose caches a block would leave, and 64 elsewhere.
    axis_name: mapped axes over which the examples are divided.

  Returns:
    A pytree like the params, of non-negative entries.

  Raises:
    ValueError: if there are no such `labels`.
  """
  validate.one_of(get_args(Labels), labels=labels)
  if block_size is None:
    block_size = 1 if jax.default_backend() == "cpu" else 64

  def squares(example):
    """Of one example, with axis 0 of length 1."""
    logits, push = jax.linearize(
      lambda p: model.apply(p, example["input"])[0], params
    )
    pull = jax.linear_transpose(push, params)
    (probability,) = jax.nn.softmax(logits)
    scores = probability - jnp.eye(logits.shape[-1], dtype=logits.dtype)
    if labels == "observed":
      scores = scores[example["label"]]
    else:
      scores = jnp.sqrt(probability)[:, None] * scores

    def add(sums, score):
      (grad,) = pull(score[None])
      return jax.tree.map(lambda s, g: s + jnp.square(g), sums, grad), None

    # One label after the other: the gradients of all would leave the caches.
    return jax.lax.scan(add, optax.tree.zeros_like(params), scores)[0]

  def total(batch, weight):
    if tree.size(batch) == 1:
      (alone,) = weight
      return jax.tree.map(lambda s: alone.astype(s.dtype) * s, squares(batch))
    single = jax.tree.map(lambda leaf: leaf[:, None], batch)
    return jax.tree.map(
      lambda s: jnp.tensordot(weight.astype(s.dtype), s, 1),
      jax.vmap(squares)(single),
    )

  return average(total, examples, batch_size=block_size, axis_name=axis_name)
