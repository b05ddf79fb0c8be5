"""A small convolutional net."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from junlearn.nn.vision.conv import conv_general_dilated


class CNN(nn.Module):
  """3x3 convolutions of stride 2, one hidden dense layer; no BatchNorm.

  With the defaults 13,706 parameters on 8x8x1 images, 105,866 on 28x28x1 and
  136,874 on 32x32x3; enough to fit a few thousand images perfectly, which is
  what makes an unlearning experiment informative.

  Attributes:
    num_classes: outputs.
    features: channels of the convolutions; each halves height and width.
    hidden: width of the dense layer.
  """

  num_classes: int
  features: Sequence[int] = (16, 32)
  hidden: int = 64

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
