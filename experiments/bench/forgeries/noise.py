"""Edits of the released numbers and of the noise in them."""

from pathlib import Path

import jax
import numpy as np
from safetensors import numpy as safetensors

from experiments.bench.forgeries.folder import (
  CERTIFICATE,
  PARAMS,
  pick,
  read_json,
  release,
)
from experiments.release import register
from junlearn.storage import checkpoint

_SCALES = (0.0, 0.5, 0.7, 1.5, 3.0)
_SHIFTS = (1e-6, 1.0, 100.0)  # standard deviations


def move(folder: Path, rng: np.random.Generator) -> str:
  """One released number, by multiples of the noise's standard deviation."""
  place = release(folder, rng)
  sigma = read_json(place / CERTIFICATE)["sigma"]
  grid = read_json(place / CERTIFICATE)["grid"]
  by = pick(rng, _SHIFTS)
  path = place / PARAMS
  params = safetensors.load(path.read_bytes())
  leaf = params[pick(rng, sorted(params))]
  # Of all rows, where these are equal.
  equal = (leaf == leaf[:1]).all()
  index = [int(rng.integers(n)) for n in leaf.shape]
  where = (slice(None), *index[1:]) if equal else tuple(index)
  leaf[where] += max(np.round(by * sigma / grid), 1) * grid
  path.write_bytes(safetensors.save(params))
  return f"by {by:g} sigma"


def rescale(folder: Path, rng: np.random.Generator) -> str:
  """The noise of a release."""
  place = release(folder, rng)
  terms = read_json(place / CERTIFICATE)
  name = place.relative_to(folder / "releases").as_posix()
  path = place / PARAMS
  released = safetensors.load(path.read_bytes())
  like = _nested(released)
  corrected = checkpoint.load(
    folder / "checkpoints" / f"{name}-corrected", like
  )
  by, grid = pick(rng, _SCALES), terms["grid"]

  def other(old, before):
    whole = np.round(np.asarray(before) / grid) * grid
    return whole + np.round(by * (old - whole) / grid) * grid

  new = jax.tree.map(other, like, corrected)
  path.write_bytes(register.to_safetensors(new))
  return f"by {by:g}"


def _nested(flat):
  """The params of a file, as the tree that they are."""
  tree = {}
  for name, leaf in flat.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree
