"""Adversarial examples.

Source: A. Ebrahimpour-Boroojeny et al., "AMUN: Adversarial Machine
UNlearning", arXiv 2503.00917, and its released l2 attack.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from junlearn import tree
from junlearn.model import Model


class Adversarial(NamedTuple):
  """The nearest adversarial example of each of `n` examples.

  Attributes:
    input: `[n, ...]`, in the box; the given input where the search failed.
    label: `[n]`, what the model says of `input`: a wrong label, or the true
      one where the search failed.
    distance: `[n]`, the l2 norm of the perturbation, in units of the input.
    epsilon: `[n]`, the radius that the search had reached.
    failed: `[n]` bool, no label flip within the largest radius.
    steps: scalar, gradients taken by the slowest example of all blocks.
  """

  input: jax.Array
  label: jax.Array
  distance: jax.Array
  epsilon: jax.Array
  failed: jax.Array
  steps: jax.Array


def _norm(x: jax.Array) -> jax.Array:
  """Norm of each example, `[n, 1, ...]`, broadcastable to `x`."""
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
) -> Callable[[Any, Any], Adversarial]:
  """Projected gradient ascent in a growing l2 ball, stopped at the first flip.

      delta <- delta + (epsilon / 10) g / |g|,  g = grad_x l(f(x + delta), y)
      delta <- delta min(1, epsilon / |delta|), then x + delta clipped to box

  The label is tested before each step; after `num_steps` steps without a flip
  the radius doubles. Because the step is a tenth of the radius, the distance
  found is within about a tenth of what this path allows.

  The search is one jitted function. Examples that are done stay in the batch
  behind an active mask; batches hold examples of similar margin, so that few
  wait for a slow one.

  Args:
    model: gives logits `[n, classes]`; evaluated without a key.
    epsilon: first radius, in units of the input.
    num_steps: steps at each radius.
    max_doublings: doublings before an example counts as failed.
    warm_start: keep the perturbation when the radius doubles (as released);
      otherwise start again from the example, which gives slightly smaller
      perturbations at more cost.
    batch_size: examples searched together.
    box: smallest and largest value of an input.

  Returns:
    `(params, examples) -> Adversarial`. An example that is misclassified
    already is its own nearest adversarial example, at distance 0.

  Raises:
    ValueError: if a number is out of range.
  """
  for name, value, least in (
    ("num_steps", num_steps, 1),
    ("max_doublings", max_doublings, 0),
    ("batch_size", batch_size, 1),
  ):
    if value < least:
      raise ValueError(
        f"nearest_adversarial: {name} is {value}; it must be at least {least}."
      )
  if not epsilon > 0:
    raise ValueError(
      f"nearest_adversarial: epsilon is {epsilon}; it must be above 0."
    )
  if not box[0] < box[1]:
    raise ValueError(
      f"nearest_adversarial: box is {box}; its first value must be the smaller."
    )

  def search(params, inputs, labels):
    def loss(delta):
      logits, _ = model.apply(params, inputs + delta)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.sum(losses), jnp.argmax(logits, axis=-1)

    per_example = (-1,) + (1,) * (inputs.ndim - 1)

    def condition(carry):
      step, _, _, done, _ = carry
      return (step < num_steps * (max_doublings + 1)) & ~jnp.all(done)

    def body(carry):
      step, delta, predicted, done, radius = carry
      grows = (step > 0) & (step % num_steps == 0)
      radius = jnp.where(grows & ~done, 2 * radius, radius)
      if not warm_start:
        restart = (grows & ~done).reshape(per_example)
        delta = jnp.where(restart, 0, delta)
      (_, now), grads = jax.value_and_grad(loss, has_aux=True)(delta)
      predicted = jnp.where(done, predicted, now)
      done = done | (now != labels)
      r = radius.reshape(per_example)
      moved = delta + r / 10 * grads / (_norm(grads) + 1e-10)
      moved = moved * jnp.minimum(1, r / jnp.maximum(_norm(moved), 1e-10))
      moved = jnp.clip(inputs + moved, *box) - inputs
      delta = jnp.where(done.reshape(per_example), delta, moved)
      return step + 1, delta, predicted, done, radius

    zero = jnp.zeros((), jnp.int32)
    done = jnp.zeros(labels.shape, bool)
    radius = jnp.full(labels.shape, epsilon, inputs.dtype)
    steps, delta, predicted, done, radius = jax.lax.while_loop(
      condition,
      body,
      (zero, jnp.zeros_like(inputs), labels.astype(jnp.int32), done, radius),
    )
    # The last step's result has not been tested yet.
    flipped = jnp.argmax(model.apply(params, inputs + delta)[0], axis=-1)
    predicted = jnp.where(done, predicted, flipped)
    failed = predicted == labels
    delta = jnp.where(failed.reshape(per_example), 0, delta)
    return Adversarial(
      input=inputs + delta,
      label=predicted.astype(labels.dtype),
      distance=_norm(delta).reshape(labels.shape),
      epsilon=radius,
      failed=failed,
      steps=steps,
    )

  @jax.jit
  def nearest(params, examples):
    inputs, labels = examples["input"], examples["label"]
    n = labels.shape[0]
    logits, _ = model.apply(params, inputs)
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    order = jnp.argsort(2 * true - jnp.sum(jax.lax.top_k(logits, 2)[0], -1))
    size = min(batch_size, n)
    blocks = -(-n // size)
    rows = order[jnp.arange(blocks * size) % n].reshape(blocks, size)
    found = jax.lax.map(lambda r: search(params, inputs[r], labels[r]), rows)
    inverse = jnp.argsort(order)
    flat = jax.tree.map(
      lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[inverse],
      found._replace(steps=None),
    )
    return flat._replace(steps=jnp.max(found.steps))

  def checked(params, examples):
    examples = {k: jnp.asarray(examples[k]) for k in ("input", "label")}
    tree.size(examples)
    return nearest(params, examples)

  return checked


def random_direction(
  key: jax.Array,
  inputs: jax.Array,
  distance: jax.Array,
  *,
  box: tuple[float, float] = (0.0, 1.0),
) -> jax.Array:
  """Inputs moved by `distance` `[n]` (l2) in a random direction, then clipped.

  The control for adversarial directions: same norm, no gradient.
  """
  noise = jax.random.normal(key, inputs.shape, inputs.dtype)
  radius = distance.reshape(_norm(noise).shape)
  return jnp.clip(inputs + radius * noise / _norm(noise), *box)
