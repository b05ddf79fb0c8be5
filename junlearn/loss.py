"""Per-example losses.

    Loss: (params, examples, key=None) -> ([n] losses, params)

As in `Model.apply`, a key means training mode and the returned params carry
refreshed batch statistics. Means are taken in `objective`, in one place.
"""

from collections.abc import Callable

import jax
import optax

from junlearn.model import Model
from junlearn.typing import Examples, Params

Loss = Callable[..., tuple[jax.Array, Params]]
OutputLoss = Callable[[jax.Array, Examples], jax.Array]


def softmax_cross_entropy(logits: jax.Array, examples: Examples) -> jax.Array:
  """`l = logsumexp(z) - z_y` in nats: convex in the logits.

  Args:
    logits: `[n, classes]`.
    examples: with integer `label` `[n]` in `[0, classes)`.
  """
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, examples["label"]
  )


def of_outputs(
  model: Model, output_loss: OutputLoss = softmax_cross_entropy
) -> Loss:
  """The loss of a model's outputs for `examples["input"]`.

  Args:
    model: gives outputs `[n, ...]`.
    output_loss: `(outputs, examples) -> [n]`.
  """

  def loss(params, examples, key=None):
    outputs, params = model.apply(params, examples["input"], key)
    return output_loss(outputs, examples), params

  return loss


def cross_entropy(model: Model) -> Loss:
  """Cross-entropy of integer labels, see `softmax_cross_entropy`."""
  return of_outputs(model)
