"""A multi-layer perceptron."""

from collections.abc import Sequence

import jax
from flax import linen as nn


class MLP(nn.Module):
  """Dense layers with ReLU between them; logits `[n, num_classes]`.

  Attributes:
    num_classes: outputs.
    hidden: widths of the hidden layers; none gives a linear model.
  """

  num_classes: int
  hidden: Sequence[int] = (128,)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits of inputs `[n, ...]`, flattened."""
    x = x.reshape(x.shape[0], -1)
    for width in self.hidden:
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(self.num_classes)(x)
