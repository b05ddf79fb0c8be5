"""Data sets as dicts of arrays, and requests over them.

`load` gives NumPy arrays of images, and `text.encoding` makes them of the
questions and answers of `text.authors` or `text.tofu`; `select` splits them
into a `Request`.
"""

from junlearn.data import feature, select
from junlearn.data.dataset import Dataset, from_arrays, load

__all__ = ["Dataset", "feature", "from_arrays", "load", "select"]
