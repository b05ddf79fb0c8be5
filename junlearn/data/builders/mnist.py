"""MNIST and Fashion-MNIST, which share one file format."""

from typing import Any

from junlearn.data.builders import idx, images, sources

FILES = {
  "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
  "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class Mnist(images.ImageBuilder, skip_registration=True):
  """60,000 + 10,000 grey images of 28x28 pixels: handwritten digits."""

  name = "mnist"
  IMAGE_SHAPE = (28, 28, 1)
  CLASSES = tuple(map(str, range(10)))
  HOMEPAGE = "http://yann.lecun.com/exdb/mnist/"
  MANUAL_DOWNLOAD_INSTRUCTIONS = sources.MANUAL
  SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"

  def _splits(self, dl_manager: Any) -> dict[str, images.Split]:
    files = [file for pair in FILES.values() for file in pair]
    urls = {file: self.SOURCE + file for file in files}
    paths = sources.fetch(dl_manager, self.name, urls)
    return {
      name: images.Split(
        image=idx.read(paths[image], ndim=3)[..., None],
        label=idx.read(paths[label], ndim=1),
      )
      for name, (image, label) in FILES.items()
    }


class FashionMnist(Mnist, skip_registration=True):
  """60,000 + 10,000 grey images of 28x28 pixels: articles of clothing."""

  name = "fashion_mnist"
  CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
  )
  HOMEPAGE = "https://github.com/zalandoresearch/fashion-mnist"
  SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
