"""Edits of the fields of configurations, certificates and lines."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.forgeries.folder import (
  CERTIFICATE,
  leaves,
  pick,
  read_json,
  write_json,
)
from experiments.release import register

_FACTORS = (1.0001, 1.01, 1.5, 2.0, 10.0, 1000.0)


def _documents(folder) -> Iterator[tuple[str, Any, Callable[[Any], None]]]:
  """Kind, content and how to write it: configuration, certificates, lines."""
  paths = [(folder / "config.json", "config")]
  paths += [
    (path, "certificate")
    for path in sorted((folder / "releases").rglob(CERTIFICATE))
  ]
  for path, kind in paths:
    yield kind, read_json(path), lambda new, path=path: write_json(path, new)
  path = folder / register.LEDGER
  lines = [json.loads(line) for line in path.read_text().splitlines()]

  def save(index):
    def write(new):
      lines[index] = new
      text = "".join(f"{json.dumps(line)}\n" for line in lines)
      path.write_text(text)

    return write

  for index, line in enumerate(lines):
    yield "line", line, save(index)


def _document(folder, rng):
  kind = pick(rng, ("config", "certificate", "line"))
  return pick(rng, [d for d in _documents(folder) if d[0] == kind])


def _parent(content, path):
  for name in path[:-1]:
    content = content[name]
  return content


def _named(kind, path):
  return f"{kind}: {'.'.join(map(str, path))}"


def scale(folder: Path, rng: np.random.Generator) -> str | None:
  """A number of a configuration, a certificate or a line, by a factor.

  Whole numbers stay whole, and those that are 0 become the factor.
  """
  kind, content, save = _document(folder, rng)
  numbers = [
    (path, leaf)
    for path, leaf in leaves(content)
    if isinstance(leaf, int | float) and not isinstance(leaf, bool)
  ]
  path, leaf = pick(rng, numbers)
  factor = pick(rng, _FACTORS) ** pick(rng, (1, -1))
  new = leaf * factor if leaf else factor
  if isinstance(leaf, int):
    new = round(new) if round(new) != leaf else leaf + 1
  _parent(content, path)[path[-1]] = new
  save(content)
  return _named(kind, path)


def delete(folder: Path, rng: np.random.Generator) -> str:
  """A field, or all fields of which it is one."""
  kind, content, save = _document(folder, rng)
  path, _ = pick(rng, list(leaves(content)))
  path = path[: int(rng.integers(1, len(path) + 1))]
  del _parent(content, path)[path[-1]]
  save(content)
  return _named(kind, path)


def reword(folder: Path, rng: np.random.Generator) -> str:
  """A text, by one of another kind or value."""
  kind, content, save = _document(folder, rng)
  texts = [(p, x) for p, x in leaves(content) if not isinstance(x, int)]
  path, leaf = pick(rng, texts)
  _parent(content, path)[path[-1]] = pick(
    rng, ("", f"{leaf}.", None, 1, [], {}, True, "\ud800")
  )
  save(content)
  return _named(kind, path)


def exchange(folder: Path, rng: np.random.Generator) -> str:
  """A field of two certificates, or of two lines."""
  kind = pick(rng, ("certificate", "line"))
  found = [d for d in _documents(folder) if d[0] == kind]
  chosen = rng.choice(len(found), 2, replace=False)
  (_, a, save_a), (_, b, save_b) = (found[i] for i in chosen)
  path = pick(rng, sorted({p for p, _ in leaves(a)}, key=str))
  if path not in {p for p, _ in leaves(b)}:
    path = path[:1]
  one, other, name = _parent(a, path), _parent(b, path), path[-1]
  one[name], other[name] = other[name], one[name]
  save_a(a)
  save_b(b)
  return _named(kind, path)
