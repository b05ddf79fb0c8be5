"""Adversarial examples.

Source: A. Ebrahimpour-Boroojeny et al., "AMUN: Adversarial Machine
UNlearning", arXiv 2503.00917, and its released l2 attack.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import tree, validate
from junlearn.model import Model
from junlearn.typing import Examples, Key, Params


class Adversarial(NamedTuple):
  """The nearest adversarial example of each of `n` examples.

  Attributes:
    input: `[n, ...]`, in the box; the given input where the search failed.
    label: `[n]`, what the model says of `input`: a wrong label, or the true
      one where the search failed.
    distance: `[n]`, the l2 norm of the perturbation, in units of the input.
    epsilon: `[n]`, the radius that the search had reached.
    failed: `[n]` bool, no label flip within the largest radius.
    steps: scalar, gradients taken by the slowest example.
  """

  input: jax.Array
  label: jax.Array
  distance: jax.Array
  epsilon: jax.Array
  failed: jax.Array
  steps: jax.Array


def l2_norm(x: jax.Array) -> jax.Array:
  """The l2 norm of each example `[n, ...]`, kept as `[n, 1, ...]`."""
  axes = tuple(range(1, x.ndim))
  return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))


def nearest_adversarial(
  model: Model,
  *,
  epsilon: float = 0.04,
  num_steps: int = 50,
  max_doublings: int = 12,
  warm_start: bool = True,
  batch_size: int = 128,
  box: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Params, Examples], Adversarial]:
  """Projected gradient ascent in a growing l2 ball, stopped at the first flip.

      delta <- delta + (epsilon / 10) g / |g|,  g = grad_x l(f(x + delta), y)
      delta <- delta min(1, epsilon / |delta|), then x + delta clipped to box

  The label is tested before each step; after `num_steps` steps without a flip
  the radius doubles. The distance found bounds the true one from above; the
  step alone, a tenth of the radius, adds up to a fifth to it.

  The search is one jitted function over `batch_size` slots. A slot whose
  example is done takes the next one from a queue, so that none waits for a
  slow one; the queue begins with the largest margins.

  Args:
    model: gives logits `[n, classes]`; evaluated without a key.
    epsilon: first radius, in units of the input.
    num_steps: steps at each radius.
    max_doublings: doublings before an example counts as failed.
    warm_start: keep the perturbation when the radius doubles (as released);
      otherwise start again from the example.
    batch_size: examples searched together.
    box: smallest and largest value of an input.

  Returns:
    `(params, examples) -> Adversarial`. An example that is misclassified
    already is its own nearest adversarial example, at distance 0.

  Raises:
    ValueError: if a number is out of range.
  """
  validate.positive(epsilon=epsilon)
  validate.at_least(1, num_steps=num_steps, batch_size=batch_size)
  validate.at_least(0, max_doublings=max_doublings)
  if not box[0] < box[1]:
    raise ValueError(f"box is {box}; its first value must be the smaller.")

  limit = num_steps * (max_doublings + 1)

  def radius_at(step):
    """The radius after so many steps; the last one is not doubled again."""
    doublings = jnp.minimum(step // num_steps, max_doublings)
    return jnp.ldexp(jnp.float32(epsilon), doublings)

  @jax.jit
  def nearest(params, examples):
    inputs, labels = examples["input"], examples["label"]
    n = labels.shape[0]
    size = min(batch_size, n)
    per_example = (-1,) + (1,) * (inputs.ndim - 1)
    logits, _ = model.apply(params, inputs)
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    margin = 2 * true - jnp.sum(jax.lax.top_k(logits, 2)[0], -1)
    # Longest searches first: short ones fill the slots at the end.
    queue = jnp.argsort(-margin).astype(jnp.int32)

    def body(carry):
      begun, row, step, delta, result = carry
      x, y = inputs.at[row].get(mode="clip"), labels.at[row].get(mode="clip")

      def loss(delta):
        logits, _ = model.apply(params, x + delta)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.sum(losses), jnp.argmax(logits, -1).astype(labels.dtype)

      if not warm_start:
        grown = (step > 0) & (step % num_steps == 0) & (step < limit)
        delta = jnp.where(grown.reshape(per_example), 0, delta)
      (_, predicted), grads = jax.value_and_grad(loss, has_aux=True)(delta)
      done = (row < n) & ((predicted != y) | (step == limit))

      def write(result):
        index = jnp.where(done, row, n)
        return tuple(
          table.at[index].set(value, mode="drop")
          for table, value in zip(result, (delta, predicted, step), strict=True)
        )

      result = jax.lax.cond(jnp.any(done), write, lambda r: r, result)
      r = radius_at(step).astype(inputs.dtype).reshape(per_example)
      moved = delta + r / 10 * grads / (l2_norm(grads) + 1e-10)
      moved = moved * jnp.minimum(1, r / jnp.maximum(l2_norm(moved), 1e-10))
      moved = jnp.clip(x + moved, *box) - x
      # A slot whose example is done begins with the next one of the queue.
      place = begun + jnp.cumsum(done, dtype=jnp.int32) - 1
      following = queue.at[place].get(mode="fill", fill_value=n)
      row = jnp.where(done, following, row)
      step = jnp.where(done, 0, step + 1)
      delta = jnp.where(done.reshape(per_example), 0, moved)
      begun = begun + jnp.sum(done, dtype=jnp.int32)
      return begun, row, step, delta, result

    start = jnp.zeros(size, jnp.int32)
    result = (jnp.zeros_like(inputs), labels, jnp.zeros(n, jnp.int32))
    *_, (delta, predicted, step) = jax.lax.while_loop(
      lambda carry: jnp.any(carry[1] < n),
      body,
      (
        jnp.int32(size),
        queue[:size],
        start,
        jnp.zeros((size, *inputs.shape[1:]), inputs.dtype),
        result,
      ),
    )
    failed = predicted == labels
    delta = jnp.where(failed.reshape(per_example), 0, delta)
    return Adversarial(
      input=inputs + delta,
      label=predicted,
      distance=l2_norm(delta).reshape(labels.shape),
      epsilon=radius_at(step).astype(inputs.dtype),
      failed=failed,
      steps=jnp.max(jnp.minimum(step + 1, limit)),
    )

  def checked(params, examples):
    examples = {k: jnp.asarray(examples[k]) for k in ("input", "label")}
    tree.size(examples)
    return nearest(params, examples)

  return checked


def random_direction(
  key: Key,
  inputs: jax.Array,
  distance: jax.Array,
  *,
  box: tuple[float, float] = (0.0, 1.0),
) -> jax.Array:
  """Inputs moved by `distance` `[n]` (l2) in a random direction, then clipped.

  The control for adversarial directions: same norm, no gradient.
  """
  noise = jax.random.normal(key, inputs.shape, inputs.dtype)
  radius = distance.reshape(l2_norm(noise).shape)
  return jnp.clip(inputs + radius * noise / l2_norm(noise), *box)
