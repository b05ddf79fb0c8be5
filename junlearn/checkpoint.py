"""Checkpoints: complete, verified, or refused.

A checkpoint is an orbax directory with the SHA-256 of its content beside it.
It is written under another name and renamed, so that an interruption leaves
the one before; on loading, structure, shapes, dtypes and the hash must agree.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from junlearn import tree

_HASH = "sha256.json"


class CheckpointError(ValueError):
  """What stands at the path is not the checkpoint that was asked for."""


def save(path: str | Path, content: Any) -> str:
  """Writes a pytree of arrays; replaces what was there; returns its hash.

  Raises:
    OSError: if the disk is full or the path cannot be written; what was there
      before is untouched.
  """
  path = Path(path).absolute()
  partial = _partial(path)
  shutil.rmtree(partial, ignore_errors=True)
  partial.parent.mkdir(parents=True, exist_ok=True)
  flat = _flatten(content)
  try:
    ocp.save(partial / "tree", flat)
    digest = tree.digest(content)
    (partial / _HASH).write_text(json.dumps({"sha256": digest}))
  except (OSError, ValueError) as error:  # orbax wraps a full disk in either
    shutil.rmtree(partial, ignore_errors=True)
    raise OSError(f"checkpoint {path} could not be written: {error}") from error
  old = _interrupted(path)
  if path.exists():  # else the old one is all there is until the rename below
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
  partial.rename(path)
  shutil.rmtree(old, ignore_errors=True)
  return digest


def exists(path: str | Path) -> bool:
  """Whether a checkpoint was written at the path."""
  return Path(path).is_dir() or _interrupted(Path(path)).is_dir()


def load(path: str | Path, like: Any) -> Any:
  """Reads a checkpoint into the structure of `like`.

  Args:
    path: where `save` wrote.
    like: a pytree of arrays, or of what `jax.eval_shape` gives, with the
      structure, shapes and dtypes expected.

  Raises:
    CheckpointError: if there is none, if it is truncated, or if it holds other
      leaves, shapes or dtypes (they are listed).
  """
  path = Path(path).absolute()
  if not path.is_dir() and _interrupted(path).is_dir():
    path = _interrupted(path)
  if not (path / _HASH).is_file():
    raise CheckpointError(f"{path} holds no complete checkpoint.")
  expected = _flatten(like)
  try:
    recorded = json.loads((path / _HASH).read_text())["sha256"]
    stored = ocp.metadata(path / "tree").metadata
    difference = _difference(stored, expected)
    if not difference:
      target = {k: _zeros(v) for k, v in expected.items()}
      flat = ocp.load(path / "tree", target)
  except Exception as error:  # whatever a damaged file makes the reader raise
    raise CheckpointError(
      f"checkpoint {path} is damaged ({type(error).__name__}); delete it to "
      "start again from what was before it."
    ) from error
  if difference:
    raise CheckpointError(
      f"checkpoint {path} belongs to something else: {difference}."
    )
  structure = jax.tree.structure(like)
  content = jax.tree.unflatten(structure, [flat[name] for name in expected])
  if tree.digest(content) != recorded:
    raise CheckpointError(
      f"checkpoint {path} is damaged: its content does not have the recorded "
      "hash; delete it to start again from what was before it."
    )
  return content


class Progress:
  """The checkpoint of a loop under way, for `loop.host`.

  Args:
    path: where to keep it.
    seconds: least time between two saves.
    notes: NumPy arrays of the caller's, saved with the state and, when there
      is something to restore, overwritten in place by what was saved.
  """

  def __init__(
    self,
    path: str | Path,
    *,
    seconds: float = 10.0,
    notes: dict[str, np.ndarray] | None = None,
  ):
    self._path = Path(path)
    self._seconds = seconds
    self._notes = notes or {}
    self._saved = time.monotonic()

  def restore(self, carry: Any, infos: Any) -> tuple[int, Any, Any]:
    """Steps done, carry and infos: those kept, or the given ones and 0."""
    if not exists(self._path):
      return 0, carry, infos
    kept = load(self._path, self._content(0, carry, infos))
    for name, note in self._notes.items():
      note[...] = kept["notes"][name]
    infos = jax.tree.map(np.array, kept["infos"])
    return int(kept["step"]), kept["carry"], infos

  def save(self, step: int, carry: Any, infos: Any) -> None:
    """Keeps the state if `seconds` have passed since the last time."""
    if time.monotonic() - self._saved >= self._seconds:
      save(self._path, self._content(step, carry, infos))
      self._saved = time.monotonic()

  def clear(self) -> None:
    """Forgets what was kept, once the result is safe elsewhere."""
    for path in (self._path, _interrupted(self._path), _partial(self._path)):
      shutil.rmtree(path, ignore_errors=True)

  def _content(self, step, carry, infos):
    return {
      "step": np.int32(step),
      "carry": carry,
      "infos": infos,
      "notes": self._notes,
    }


def _partial(path: Path) -> Path:
  """Where `save` writes before it renames."""
  return path.with_name(f"{path.name}.partial")


def _interrupted(path: Path) -> Path:
  """Where an interrupted `save` may have left the checkpoint before."""
  return path.with_name(f"{path.name}.old")


def _flatten(content: Any) -> dict[str, Any]:
  """Leaves by path; NumPy's scalars and Python's as arrays, for orbax."""
  leaves = jax.tree_util.tree_flatten_with_path(content)[0]
  flat = {
    tree.path_name(path): leaf
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    else np.asarray(leaf)
    for path, leaf in leaves
  }
  if len(flat) < len(leaves):
    raise ValueError("checkpoint: two leaves have the same path name.")
  return flat


def _zeros(leaf: Any) -> np.ndarray | jax.Array:
  """Host arrays stay there, where float64 does not depend on JAX's setting."""
  library = np if isinstance(leaf, np.ndarray) else jnp
  return library.zeros(leaf.shape, leaf.dtype)


def _difference(stored: dict[str, Any], expected: dict[str, Any]) -> str:
  """The first few leaves that differ, in words; empty if none does."""
  words = [f"missing {name}" for name in expected if name not in stored]
  words += [f"unexpected {name}" for name in stored if name not in expected]
  for name in expected.keys() & stored.keys():
    have, want = stored[name], expected[name]
    if (tuple(have.shape), have.dtype) != (want.shape, want.dtype):
      words.append(
        f"{name} is {have.dtype}{list(have.shape)}, not "
        f"{want.dtype}{list(want.shape)}"
      )
  return ", ".join(sorted(words)[:5])
