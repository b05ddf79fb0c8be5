"""What lies in the folder of a certified run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CERTIFICATE, PARAMS = "certificate.json", "params.safetensors"


def read_json(path: Path) -> dict[str, Any] | None:
  """An object of JSON, or None for what is none."""
  return parsed(path.read_bytes()) if path.exists() else None


def write_json(path: Path, content: Any) -> None:
  """In the form that certificates and configurations have."""
  path.write_text(json.dumps(content, indent=2) + "\n")


def parsed(content: bytes | str) -> dict[str, Any] | None:
  """An object of JSON, or None for what is none."""
  try:
    found = json.loads(content)
  except (ValueError, RecursionError):
    return None
  return found if isinstance(found, dict) else None


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
  """The path and the value of every leaf of JSON."""
  if isinstance(value, dict | list) and value:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in pairs:
      yield from leaves(each, (*path, name))
  else:
    yield path, value


def pick(rng: np.random.Generator, options: Any) -> Any:
  """One of them."""
  return options[rng.integers(len(options))]


def names(folder: Path) -> list[str]:
  """The releases that are there, such as `seed0/newton/0`."""
  top = folder / "releases"
  return sorted(p.parent.relative_to(top).as_posix() for p in top.rglob(PARAMS))


def release(folder: Path, rng: np.random.Generator) -> Path:
  """The folder of a release."""
  return folder / "releases" / pick(rng, names(folder))
