"""A small convolutional net."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from junlearn.nn.conv import conv_general_dilated


class CNN(nn.Module):
  """3x3 convolutions of stride 2, one hidden dense layer; no BatchNorm.

  With the defaults about 70,000 parameters on 8x8x1 images and 240,000 on
  32x32x3; it fits a few thousand images perfectly, which is what makes an
  unlearning experiment informative.

  Attributes:
    num_classes: outputs.
    features: channels of the convolutions; each halves height and width.
    hidden: width of the dense layer.
  """

  num_classes: int
  features: Sequence[int] = (32, 64)
  hidden: int = 128

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits `[n, num_classes]` of images `[n, h, w, c]`."""
    for features in self.features:
      x = nn.Conv(
        features,
        (3, 3),
        strides=2,
        conv_general_dilated=conv_general_dilated,
      )(x)
      x = nn.relu(x)
    x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.num_classes)(x)
