"""Random edits of the folder of a certified run."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import numpy as safetensors

from experiments.bench.forgeries_rewrite import (
  CERTIFICATE,
  PARAMS,
  read_json,
  write_json,
)
from experiments.release import register
from junlearn.certify import signing
from junlearn.storage import checkpoint

# `(folder, rng) -> what was edited`, or None where there is nothing to edit.
Edit = Callable[[Path, np.random.Generator], str | None]

_FACTORS = (1.0001, 1.01, 1.5, 2.0, 10.0, 1000.0)
_SCALES = (0.0, 0.5, 0.7, 1.5, 3.0)
_SHIFTS = (1e-6, 1.0, 100.0)  # standard deviations


def _pick(rng, options):
  return options[rng.integers(len(options))]


def names(folder: Path) -> list[str]:
  """The releases that are there, such as `seed0/newton/0`."""
  top = folder / "releases"
  return sorted(p.parent.relative_to(top).as_posix() for p in top.rglob(PARAMS))


def _release(folder, rng):
  return folder / "releases" / _pick(rng, names(folder))


def _two(folder, rng):
  found = names(folder)
  first, second = rng.choice(len(found), 2, replace=False)
  return [folder / "releases" / found[i] for i in (first, second)]


def _files(folder):
  """What a verification reads, each kind as often as another."""
  releases = folder / "releases"
  kinds = {
    "config": [folder / "config.json"],
    "ledger": [folder / register.LEDGER],
    "public key": [folder / register.PUBLIC_KEY],
    "salt": [folder / register.SALT],
    "signing key": [folder / register.SIGNING_KEY],
    "certificate": sorted(releases.rglob(CERTIFICATE)),
    "params": sorted(releases.rglob(PARAMS)),
    "checkpoint": [
      path
      for path in sorted((folder / "checkpoints").rglob("*"))
      if path.is_file()
    ],
  }
  return list(kinds.items())


def _file(folder, rng):
  kind, paths = _pick(rng, _files(folder))
  path = _pick(rng, paths)
  inside = path.relative_to(folder).as_posix()
  return path, f"{kind}: {inside}" if kind == "checkpoint" else kind


def flip(folder: Path, rng: np.random.Generator) -> str | None:
  """One bit of a file."""
  path, where = _file(folder, rng)
  content = bytearray(path.read_bytes())
  if not content:
    return None
  before = _told(path)
  content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)
  fields = sorted(dict(before ^ _told(path)))
  return f"{where}: {fields[0]}" if fields else where


def remove(folder: Path, rng: np.random.Generator) -> str:
  """A file, or the folder of a release."""
  if rng.integers(4) == 0:
    shutil.rmtree(_release(folder, rng))
    return "release"
  path, where = _file(folder, rng)
  path.unlink()
  return where


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
  kind = _pick(rng, ("config", "certificate", "line"))
  return _pick(rng, [d for d in _documents(folder) if d[0] == kind])


def _leaves(value, path=()):
  if isinstance(value, dict | list) and value:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in pairs:
      yield from _leaves(each, (*path, name))
  else:
    yield path, value


def _told(path):
  """Fields and values of a file of JSON; of others, nothing."""
  leaves = _leaves(read_json(path) or {})
  return {(".".join(map(str, p)), repr(leaf)) for p, leaf in leaves}


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
    for path, leaf in _leaves(content)
    if isinstance(leaf, int | float) and not isinstance(leaf, bool)
  ]
  path, leaf = _pick(rng, numbers)
  factor = _pick(rng, _FACTORS) ** _pick(rng, (1, -1))
  new = leaf * factor if leaf else factor
  if isinstance(leaf, int):
    new = round(new) if round(new) != leaf else leaf + 1
  _parent(content, path)[path[-1]] = new
  save(content)
  return _named(kind, path)


def delete(folder: Path, rng: np.random.Generator) -> str:
  """A field, or all fields of which it is one."""
  kind, content, save = _document(folder, rng)
  path, _ = _pick(rng, list(_leaves(content)))
  path = path[: int(rng.integers(1, len(path) + 1))]
  del _parent(content, path)[path[-1]]
  save(content)
  return _named(kind, path)


def reword(folder: Path, rng: np.random.Generator) -> str:
  """A text, by one of another kind or value."""
  kind, content, save = _document(folder, rng)
  texts = [(p, x) for p, x in _leaves(content) if not isinstance(x, int)]
  path, leaf = _pick(rng, texts)
  _parent(content, path)[path[-1]] = _pick(
    rng, ("", f"{leaf}.", None, 1, [], {}, True, "\ud800")
  )
  save(content)
  return _named(kind, path)


def exchange(folder: Path, rng: np.random.Generator) -> str:
  """A field of two certificates, or of two lines."""
  kind = _pick(rng, ("certificate", "line"))
  found = [d for d in _documents(folder) if d[0] == kind]
  chosen = rng.choice(len(found), 2, replace=False)
  (_, a, save_a), (_, b, save_b) = (found[i] for i in chosen)
  path = _pick(rng, sorted({p for p, _ in _leaves(a)}, key=str))
  if path not in {p for p, _ in _leaves(b)}:
    path = path[:1]
  one, other, name = _parent(a, path), _parent(b, path), path[-1]
  one[name], other[name] = other[name], one[name]
  save_a(a)
  save_b(b)
  return _named(kind, path)


def swap(folder: Path, rng: np.random.Generator) -> str:
  """A file, or all, of two releases; or two checkpoints."""
  what = _pick(rng, (CERTIFICATE, PARAMS, "", "checkpoint"))
  if what == "checkpoint":
    found = [p.parent for p in (folder / "checkpoints").rglob("sha256.json")]
    first, second = rng.choice(len(found), 2, replace=False)
    paths = [sorted(found)[i] for i in (first, second)]
  else:
    paths = [place / what for place in _two(folder, rng)]
  other = folder / "other"
  for old, new in ((0, None), (1, 0), (None, 1)):
    source = other if old is None else paths[old]
    source.rename(other if new is None else paths[new])
  if what == "checkpoint":
    both = sorted(path.relative_to(folder).as_posix() for path in paths)
    return f"checkpoint: {' and '.join(both)}"
  return what or "release"


def move(folder: Path, rng: np.random.Generator) -> str:
  """One released number, by multiples of the noise's standard deviation."""
  place = _release(folder, rng)
  sigma = read_json(place / CERTIFICATE)["sigma"]
  grid = read_json(place / CERTIFICATE)["grid"]
  by = _pick(rng, _SHIFTS)
  path = place / PARAMS
  params = safetensors.load(path.read_bytes())
  leaf = params[_pick(rng, sorted(params))]
  # Of all rows, where these are equal.
  equal = (leaf == leaf[:1]).all()
  index = [int(rng.integers(n)) for n in leaf.shape]
  where = (slice(None), *index[1:]) if equal else tuple(index)
  leaf[where] += max(np.round(by * sigma / grid), 1) * grid
  path.write_bytes(safetensors.save(params))
  return f"by {by:g} sigma"


def rescale(folder: Path, rng: np.random.Generator) -> str:
  """The noise of a release."""
  place = _release(folder, rng)
  terms = read_json(place / CERTIFICATE)
  name = place.relative_to(folder / "releases").as_posix()
  path = place / PARAMS
  released = safetensors.load(path.read_bytes())
  like = _nested(released)
  corrected = checkpoint.load(
    folder / "checkpoints" / f"{name}-corrected", like
  )
  by, grid = _pick(rng, _SCALES), terms["grid"]

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


def rekey(folder: Path, rng: np.random.Generator) -> str:
  """Another salt or key."""
  pem = signing.new_key()
  other = f"{signing.public_key(signing.load_key(pem))}\n".encode()
  name, content = _pick(
    rng,
    (
      (register.SALT, secrets.token_bytes(32)),
      (register.SIGNING_KEY, pem),
      (register.PUBLIC_KEY, other),
    ),
  )
  (folder / name).write_bytes(content)
  return name


def cut(folder: Path, rng: np.random.Generator) -> str:
  """A line of the ledger: removed, doubled, moved or cut short."""
  path = folder / register.LEDGER
  lines = path.read_text().splitlines(keepends=True)
  index = int(rng.integers(len(lines)))
  how = _pick(rng, ("removed", "doubled", "moved", "cut short"))
  line = lines.pop(index)
  if how == "doubled":
    lines[index:index] = [line, line]
  elif how == "moved":
    lines.insert((index + 1) % (len(lines) + 1), line)
  elif how == "cut short":
    lines.insert(index, line[: int(rng.integers(len(line)))])
  path.write_text("".join(lines))
  return how


# By the words of the table; bytes and numbers are tried three times as often.
EDITS: dict[str, tuple[Edit, int]] = {
  "a bit flipped": (flip, 3),
  "a number scaled": (scale, 3),
  "a field deleted": (delete, 1),
  "a value replaced": (reword, 1),
  "a field exchanged between releases": (exchange, 1),
  "files exchanged": (swap, 1),
  "a released number moved": (move, 1),
  "noise rescaled": (rescale, 1),
  "a key or salt replaced": (rekey, 1),
  "a line cut": (cut, 1),
  "a file removed": (remove, 1),
}
