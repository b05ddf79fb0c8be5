"""The handwritten digits that come with scikit-learn: no download needed."""

from typing import Any

import numpy as np

from junlearn.data.builders import images


class Digits(images.ImageBuilder, skip_registration=True):
  """1,797 grey images of 8x8 pixels with 17 levels, in 10 classes.

  The data have no official split. Here, of each class's images in the bundled
  order, every fifth is a test image: 1,442 train and 355 test images with the
  same classes and (the order is by writer) the same writers in both. The rule
  needs no random numbers, so that no version of a library can change it.
  """

  name = "digits"
  IMAGE_SHAPE = (8, 8, 1)
  CLASSES = tuple(map(str, range(10)))
  PIXEL_MAX = 16  # the levels as bundled, so that x / 16 is exact in float32
  HOMEPAGE = "https://doi.org/10.24432/C50P49"

  def _splits(self, dl_manager: Any) -> dict[str, images.Split]:
    del dl_manager
    # Imported late: a second of start-up that only preparation has to pay.
    from sklearn import datasets

    bunch = datasets.load_digits()
    image = bunch.images[..., None].astype(np.uint8)
    is_test = is_test_image(bunch.target)
    return {
      "train": images.Split(image[~is_test], bunch.target[~is_test]),
      "test": images.Split(image[is_test], bunch.target[is_test]),
    }


def is_test_image(label: np.ndarray) -> np.ndarray:
  """Bool `[n]`: every fifth row of each class, given labels `[n]`."""
  is_test = np.zeros(len(label), bool)
  for value in np.unique(label):
    is_test[np.flatnonzero(label == value)[4::5]] = True
  return is_test
