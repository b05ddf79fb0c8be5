"""Named tensors in safetensors files, all in one or in shards with an index."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from junlearn.storage import files

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Tensor(NamedTuple):
  """A tensor in a file.

  Attributes:
    name: unique in its folder.
    file: that holds it.
    shape: as stored.
    dtype: as safetensors calls it, such as `BF16`.
  """

  name: str
  file: Path
  shape: tuple[int, ...]
  dtype: str

  def read(self, index: tuple[slice, ...]) -> np.ndarray:
    """A part of it, one slice an axis; nothing else is read."""
    # What is mapped stays resident until it is closed: so one at a time.
    with safetensors.safe_open(self.file, "np") as file:
      return file.get_slice(self.name)[index]


class Source(NamedTuple):
  """A tensor to write.

  Attributes:
    name: unique.
    nbytes: its size.
    get: gives it, C-contiguous.
  """

  name: str
  nbytes: int
  get: Callable[[], np.ndarray]


def find(folder: Path) -> dict[str, Tensor]:
  """The tensors of a folder by name, from the headers of its files.

  Raises:
    ValueError: if there are no such files, or if some are missing or damaged.
  """
  if (folder / WHOLE).is_file():
    names = [WHOLE]
  elif (folder / INDEX).is_file():
    names = sorted(set(_weight_map(folder / INDEX).values()))
  else:
    raise ValueError(
      f"{folder} is no checkpoint: it has neither {WHOLE} nor {INDEX}."
    )
  missing = [name for name in names if not (folder / name).is_file()]
  if missing:
    raise ValueError(f"{folder} lacks {listed(missing)}, which {INDEX} names.")
  tensors = {}
  for path in (folder / name for name in names):
    try:
      with safetensors.safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118, for it is no dict
          view = file.get_slice(name)
          shape = tuple(view.get_shape())
          tensors[name] = Tensor(name, path, shape, view.get_dtype())
    except safetensors.SafetensorError as error:
      raise ValueError(f"{path} is damaged: {error}.") from error
  return tensors


def write(folder: Path, sources: Sequence[Source], max_bytes: int) -> None:
  """Writes tensors in their order; one file's are held at a time.

  Args:
    folder: that exists.
    sources: of the tensors.
    max_bytes: of a file; a larger tensor has one for itself.

  Raises:
    OSError: if the disk is full or cannot be written.
  """
  groups: list[list[Source]] = [[]]
  room = max_bytes
  for source in sources:
    if source.nbytes > room and groups[-1]:
      groups.append([])
      room = max_bytes
    room -= source.nbytes
    groups[-1].append(source)
  weight_map: dict[str, str] = {}
  for k, group in enumerate(groups, 1):
    name = f"model-{k:05}-of-{len(groups):05}.safetensors"
    name = name if len(groups) > 1 else WHOLE
    weight_map |= {source.name: name for source in group}
    try:
      safetensors_numpy.save_file(
        {source.name: source.get() for source in group},
        folder / name,
        metadata={"format": "pt"},  # transformers 4 reads no other
      )
    except safetensors.SafetensorError as error:
      raise OSError(str(error)) from error
    # The library lets no one but their owner read its files.
    (folder / name).chmod(folder.stat().st_mode & 0o666)
  if len(groups) > 1:
    size = sum(source.nbytes for source in sources)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    files.replace(folder / INDEX, json.dumps(index, indent=2).encode())


def read_json(path: Path) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    ValueError: if it holds none.
  """
  try:
    content = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}.") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds no JSON object.")
  return content


def listed(names: Iterable[str], number: int = 8) -> str:
  """The first names, and how many there are if those are not all."""
  names = list(names)
  more = f", ... ({len(names)} in all)" if len(names) > number else ""
  return ", ".join(names[:number]) + more


def _weight_map(path: Path) -> dict[str, str]:
  content = read_json(path).get("weight_map")
  if not isinstance(content, dict) or not all(
    isinstance(name, str) for name in content.values()
  ):
    raise ValueError(f"{path} has no weight_map.")
  return content
