"""Data sets as dicts of arrays, and requests over them.

`load` gives NumPy arrays of images, and `text` makes them of the questions and
answers of `authors` or `tofu`; `select` splits them into a `Request`.
"""

from junlearn.data import (
  authors,
  feature,
  negatives,
  select,
  text,
  tofu,
  tokenizer,
)
from junlearn.data.load import Dataset, from_arrays, load

__all__ = [
  "Dataset",
  "authors",
  "feature",
  "from_arrays",
  "load",
  "negatives",
  "select",
  "text",
  "tofu",
  "tokenizer",
]
