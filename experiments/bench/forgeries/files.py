"""Edits of whole files, of their bytes and of the ledger's lines."""

import secrets
import shutil
from pathlib import Path

import numpy as np

from experiments.bench.forgeries.folder import (
  CERTIFICATE,
  PARAMS,
  leaves,
  names,
  pick,
  read_json,
  release,
)
from experiments.release import register
from junlearn.certify import signing


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
  kind, paths = pick(rng, _files(folder))
  path = pick(rng, paths)
  inside = path.relative_to(folder).as_posix()
  return path, f"{kind}: {inside}" if kind == "checkpoint" else kind


def flip(folder: Path, rng: np.random.Generator) -> str | None:
  """One bit of a file."""
  path, where = _file(folder, rng)
  content = bytearray(path.read_bytes())
  if not content:
    return None
  before = _values(path)
  content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)
  fields = sorted(dict(before ^ _values(path)))
  return f"{where}: {fields[0]}" if fields else where


def remove(folder: Path, rng: np.random.Generator) -> str:
  """A file, or the folder of a release."""
  if rng.integers(4) == 0:
    shutil.rmtree(release(folder, rng))
    return "release"
  path, where = _file(folder, rng)
  path.unlink()
  return where


def _values(path):
  """Fields and values of a file of JSON; of others, nothing."""
  found = leaves(read_json(path) or {})
  return {(".".join(map(str, p)), repr(leaf)) for p, leaf in found}


def _two(folder, rng):
  found = names(folder)
  first, second = rng.choice(len(found), 2, replace=False)
  return [folder / "releases" / found[i] for i in (first, second)]


def swap(folder: Path, rng: np.random.Generator) -> str:
  """A file, or all, of two releases; or two checkpoints."""
  what = pick(rng, (CERTIFICATE, PARAMS, "", "checkpoint"))
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


def rekey(folder: Path, rng: np.random.Generator) -> str:
  """Another salt or key."""
  pem = signing.new_key()
  other = f"{signing.public_key(signing.load_key(pem))}\n".encode()
  name, content = pick(
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
  how = pick(rng, ("removed", "doubled", "moved", "cut short"))
  line = lines.pop(index)
  if how == "doubled":
    lines[index:index] = [line, line]
  elif how == "moved":
    lines.insert((index + 1) % (len(lines) + 1), line)
  elif how == "cut short":
    lines.insert(index, line[: int(rng.integers(len(line)))])
  path.write_text("".join(lines))
  return how
