"""What the image classification builders share.

The stock TFDS builders encode PNG with TensorFlow. These store the raw bytes,
which needs nothing, loses nothing and is read faster.
"""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from junlearn.data.builders import sources


class Split(NamedTuple):
  """One split: images uint8 `[n, h, w, c]` and labels `[n]`, official order."""

  image: np.ndarray
  label: np.ndarray


# Not registered: `mnist` and `cifar10` are names of stock builders as well.
class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stores `image`, `label` and `id`, the index in the official order.

  Preparation shuffles, hence the stored id. The ids of the test split continue
  after those of the train split, so that an id names one example.

  Attributes:
    VERSION: to be raised whenever the stored content changes.
    IMAGE_SHAPE: `(h, w, c)`.
    CLASSES: the names of the classes, in the order of their labels.
    PIXEL_MAX: the stored value that stands for 1.0.
  """

  VERSION = tfds.core.Version("1.0.0")
  IMAGE_SHAPE: tuple[int, int, int]
  CLASSES: tuple[str, ...]
  PIXEL_MAX = 255
  HOMEPAGE: str

  @abc.abstractmethod
  def _splits(self, dl_manager: Any) -> dict[str, Split]:
    """The splits in the order in which the ids count."""

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "image": tfds.features.Tensor(
          shape=self.IMAGE_SHAPE,
          dtype=np.uint8,
          encoding=tfds.features.Encoding.BYTES,
        ),
        "label": tfds.features.ClassLabel(names=self.CLASSES),
        "id": tfds.features.Scalar(np.int64),
      }
    )
    return sources.LocalInfo(
      builder=self,
      features=features,
      supervised_keys=("image", "label"),
      homepage=self.HOMEPAGE,
      metadata=tfds.core.MetadataDict({"pixel_max": self.PIXEL_MAX}),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    generators, start = {}, 0
    for name, split in self._splits(dl_manager).items():
      self._check(name, split)
      generators[name] = self._generate_examples(split, start)
      start += len(split.label)
    return generators

  def _check(self, name: str, split: Split) -> None:
    n = len(split.label)
    if n == 0:
      raise ValueError(f"{self.name}: the {name} files hold no image.")
    if split.image.shape != (n, *self.IMAGE_SHAPE):
      raise ValueError(
        f"{self.name}: the {name} images have shape {split.image.shape}; with "
        f"{n} labels it must be {(n, *self.IMAGE_SHAPE)}."
      )
    if split.label.max() >= len(self.CLASSES):
      raise ValueError(
        f"{self.name}: the {name} labels contain {split.label.max()}; they "
        f"must be below {len(self.CLASSES)}."
      )

  def _generate_examples(self, split: Split, start: int) -> Iterator:
    for i, (image, label) in enumerate(zip(*split, strict=True), start):
      yield i, {"image": image, "label": int(label), "id": i}
