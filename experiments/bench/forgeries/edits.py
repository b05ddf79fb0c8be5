"""Random edits of the folder of a certified run, by the words of the table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.bench.forgeries import fields, files, noise

# `(folder, rng) -> what was edited`, or None where there is nothing to edit.
Edit = Callable[[Path, np.random.Generator], str | None]

# Each with its weight: bytes and numbers are tried three times as often.
EDITS: dict[str, tuple[Edit, int]] = {
  "a bit flipped": (files.flip, 3),
  "a number scaled": (fields.scale, 3),
  "a field deleted": (fields.delete, 1),
  "a value replaced": (fields.reword, 1),
  "a field exchanged between releases": (fields.exchange, 1),
  "files exchanged": (files.swap, 1),
  "a released number moved": (noise.move, 1),
  "noise rescaled": (noise.rescale, 1),
  "a key or salt replaced": (files.rekey, 1),
  "a line cut": (files.cut, 1),
  "a file removed": (files.remove, 1),
}
