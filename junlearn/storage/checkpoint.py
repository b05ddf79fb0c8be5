"""Checkpoints: complete, verified, or refused.

A checkpoint is an orbax directory with the SHA-256 of its content beside it.
It is written under another name and renamed, so that an interruption leaves
the one before; on loading, structure, shapes, dtypes and the hash must agree.
Params know what they were trained on: others cannot open the directory (0700).

In a job of several processes all make the same calls, but the first process
alone touches the disk: what it reads, all get.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax
from orbax.checkpoint import v1 as ocp

from junlearn import tree
from junlearn.parallel import processes
from junlearn.storage import files

_HASH = "sha256.json"


class CheckpointError(ValueError):
  """What stands at the path is not the checkpoint that was asked for."""


def save(path: str | Path, content: Any) -> str:
  """Writes a pytree of arrays; replaces what was there; returns its hash.

  Folders that are missing above it are made, for their owner alone.

  Raises:
    OSError: if the disk is full or the path cannot be written; what was there
      before is untouched.
  """
  path = Path(path).absolute()
  digest = tree.digest(content)
  if not processes.is_first():
    return digest
  partial = _partial(path)
  shutil.rmtree(partial, ignore_errors=True)
  flat = _flatten(content)
  files.make_private(partial)
  try:
    _write(partial / "tree", flat)
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
  here = Path(path).is_dir() or _interrupted(Path(path)).is_dir()
  return bool(processes.broadcast(np.bool_(here)))


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
  expected = _flatten(like)
  zeros = {k: np.zeros(v.shape, v.dtype) for k, v in expected.items()}
  kept = np.zeros(32, np.uint8), zeros
  if processes.is_first():
    kept = _read(Path(path).absolute(), expected, zeros)
  recorded, flat = processes.broadcast(kept)
  # Host arrays stay there: float64 must not depend on JAX's setting.
  content = jax.tree.unflatten(
    jax.tree.structure(like),
    [
      flat[name] if isinstance(leaf, np.ndarray) else jnp.asarray(flat[name])
      for name, leaf in expected.items()
    ],
  )
  if bytes.fromhex(tree.digest(content)) != recorded.tobytes():
    raise CheckpointError(
      f"checkpoint {path} is damaged: its content does not have the recorded "
      "hash; delete it to start again from what was before it."
    )
  return content


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
  """Shapes of a checkpoint's leaves, by their path names.

  Raises:
    CheckpointError: if there is none, or it is damaged.
  """
  found: bytes | None = None
  if processes.is_first():
    path = _complete(Path(path).absolute())
    with _reading(path):
      stored = ocp.metadata(path / "tree").metadata
      shapes = {name: list(leaf.shape) for name, leaf in stored.items()}
      found = json.dumps(shapes).encode()
  shared = json.loads(processes.broadcast_bytes(found) or "{}")
  return {name: tuple(shape) for name, shape in shared.items()}


def _alone() -> ocp.Context:
  """Where orbax does not wait for other processes: they do not call it."""
  context = ocp.Context()
  context.multiprocessing.active_processes = {0}
  context.multiprocessing.barrier_sync_key_prefix = "first"
  return context


def _write(path: Path, flat: dict[str, Any]) -> None:
  # As `ocp.save`, which waits for all processes whatever it is told.
  alone = _alone().multiprocessing.v0()
  handler = orbax.PyTreeCheckpointHandler(multiprocessing_options=alone)
  with orbax.Checkpointer(handler, multiprocessing_options=alone) as saver:
    saver.save(path, args=orbax.args.PyTreeSave(jax.device_get(flat)))


def _read(path: Path, expected: dict[str, Any], zeros: dict[str, Any]):
  """The recorded hash, 32 bytes, and the content by leaf."""
  path = _complete(path)
  with _reading(path):
    recorded = json.loads((path / _HASH).read_text())["sha256"]
    recorded = np.frombuffer(bytes.fromhex(recorded), np.uint8).reshape(32)
    difference = _difference(ocp.metadata(path / "tree").metadata, expected)
    if not difference:
      flat = ocp.load(path / "tree", zeros)
  if difference:
    raise CheckpointError(
      f"checkpoint {path} belongs to something else: {difference}."
    )
  return recorded, flat


def _complete(path: Path) -> Path:
  """Where the checkpoint lies.

  Raises:
    CheckpointError: if there is none.
  """
  if not path.is_dir() and _interrupted(path).is_dir():
    path = _interrupted(path)
  if not (path / _HASH).is_file():
    raise CheckpointError(f"{path} holds no complete checkpoint.")
  return path


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
  """Alone, and with one error for whatever a damaged file makes orbax raise."""
  try:
    with _alone():
      yield
  except Exception as error:
    raise CheckpointError(
      f"checkpoint {path} is damaged ({type(error).__name__}); delete it to "
      "start again from what was before it."
    ) from error


class Progress:
  """The checkpoint of a loop under way, for `loop.host`.

  Args:
    path: where to keep it.
    seconds: least time between two saves.
    notes: NumPy arrays of the caller's, saved with the state and, when there
      is something to restore, overwritten in place by what was saved.
    spread: whether carry (on axis 0) and infos (on axis 1) hold the members of
      a population that are this process's own. Those of all are kept, so that
      another number of processes may go on. Leaves without that axis are common
      to all members.
  """

  def __init__(
    self,
    path: str | Path,
    *,
    seconds: float = 10.0,
    notes: dict[str, np.ndarray] | None = None,
    spread: bool = False,
  ):
    self._path = Path(path)
    self._spread = spread
    self._seconds = seconds
    self._notes = notes or {}
    self._saved = time.monotonic()

  def restore(self, carry: Any, infos: Any) -> tuple[int, Any, Any]:
    """Steps done, carry and infos: those kept, or the given ones and 0."""
    if not exists(self._path):
      return 0, carry, infos
    # Gathered for its shapes alone, and the same on all processes.
    kept = load(self._path, self._content(0, carry, infos))
    for name, note in self._notes.items():
      note[...] = kept["notes"][name]
    carry, infos = kept["carry"], kept["infos"]
    if self._spread:
      stacked = [leaf for leaf in jax.tree.leaves(carry) if leaf.ndim]
      rows = processes.local_shard(tree.size(stacked))
      carry = jax.tree.map(lambda x: x[rows] if x.ndim else x, carry)
      infos = jax.tree.map(lambda x: x[:, rows] if x.ndim > 1 else x, infos)
    # Writable, for the loop fills them up.
    return int(kept["step"]), carry, jax.tree.map(np.array, infos)

  def save(self, step: int, carry: Any, infos: Any) -> None:
    """Keeps the state if `seconds` have passed since the last time."""
    due = time.monotonic() - self._saved >= self._seconds
    if self._spread:  # what all must do together, one decides
      due = processes.broadcast(np.bool_(due))
    if due:
      save(self._path, self._content(step, carry, infos))
      self._saved = time.monotonic()

  def clear(self) -> None:
    """Forgets what was kept, once the result is safe elsewhere."""
    if not processes.is_first():
      return
    for path in (self._path, _interrupted(self._path), _partial(self._path)):
      shutil.rmtree(path, ignore_errors=True)

  def _content(self, step, carry, infos):
    if self._spread:
      carry, infos = processes.gather(carry), processes.gather(infos, axis=1)
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
