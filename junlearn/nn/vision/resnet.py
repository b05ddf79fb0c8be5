"""ResNet-18 in its CIFAR form.

Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR
2016; the CIFAR form has a 3x3 stem of stride 1 and no max pooling.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from junlearn.nn.vision.conv import conv_general_dilated


class ResNet(nn.Module):
  """Basic-block residual net with BatchNorm.

  Attributes:
    num_classes: outputs.
    stages: blocks of each stage; all but the first stage halve the image.
    features: channels of the first stage, doubled at each next one.
    normalize: False leaves BatchNorm out (biases take its place).
  """

  num_classes: int
  stages: Sequence[int] = (2, 2, 2, 2)
  features: int = 64
  normalize: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Logits `[n, num_classes]` of images `[n, h, w, c]`."""
    conv = functools.partial(
      nn.Conv,
      use_bias=not self.normalize,
      conv_general_dilated=conv_general_dilated,
    )

    def norm(x):
      if not self.normalize:
        return x
      return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

    def block(x, features, stride):
      y = nn.relu(norm(conv(features, (3, 3), strides=stride)(x)))
      y = norm(conv(features, (3, 3))(y))
      if x.shape != y.shape:
        x = norm(conv(features, (1, 1), strides=stride)(x))
      return nn.relu(x + y)

    x = nn.relu(norm(conv(self.features, (3, 3))(x)))
    for stage, blocks in enumerate(self.stages):
      for index in range(blocks):
        stride = 2 if stage > 0 and index == 0 else 1
        x = block(x, self.features * 2**stage, stride)
    return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


ResNet18 = functools.partial(ResNet, stages=(2, 2, 2, 2), features=64)
