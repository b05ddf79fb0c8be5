"""TFDS builders that prepare and read without TensorFlow."""

from junlearn.data.builders.cifar10 import Cifar10
from junlearn.data.builders.digits import Digits
from junlearn.data.builders.mnist import FashionMnist, Mnist
from junlearn.data.builders.tofu import Tofu

# Of image classification; those are what `load` loads.
BUILDERS = {
  builder.name: builder for builder in (Digits, Mnist, FashionMnist, Cifar10)
}

__all__ = ["BUILDERS", "Cifar10", "Digits", "FashionMnist", "Mnist", "Tofu"]
