"""Per-example losses.

    Loss: (params, examples, key=None) -> ([n] losses, params)

As in `Model.apply`, a key means training mode and the returned params carry
refreshed batch statistics. Means are taken in `objective`, in one place.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from junlearn.model import Model

Loss = Callable[..., tuple[jax.Array, Any]]


def cross_entropy(model: Model) -> Loss:
  """Cross-entropy of integer labels, `l = logsumexp(z) - z_y`, in nats.

  Args:
    model: gives logits `[n, classes]` for `examples["input"]`; the labels
      `examples["label"]` are integers `[n]` in `[0, classes)`.
  """

  def loss(params, examples, key=None):
    logits, params = model.apply(params, examples["input"], key)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, examples["label"]
    )
    return losses, params

  return loss
