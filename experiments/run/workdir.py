"""The folder of a run: its configuration, its rows, nothing half-written.

What knows the records to be forgotten is private: others than the owner cannot
open it, whatever the umask.

In a job of several processes the first one alone reads and writes it, and all
get what it read; the others need not see its disk.
"""

import fcntl
import io
import itertools
import json
import os
import shlex
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl.flags import FLAGS, Error, Flag

from junlearn import report
from junlearn.parallel import processes
from junlearn.storage import files

_CONFIG = "config.json"
_RESULTS = "results.jsonl"
_LOCK = ".lock"
# What may stand in the folder of a run that was killed as it began.
_BEGUN = frozenset({_LOCK, f"{_CONFIG}.partial"})
# Folders that are private in every run: salts, keys and requests; params before
# noise; what was measured of them.
PRIVATE = frozenset({"private", "checkpoints", "evidence"})
# Files that are private too where a run's releases are sent out.
_RECORDS = frozenset({_CONFIG, _RESULTS})
# Flags that name records.
_NAMING = frozenset({"forget_ids", "forget_authors", "forget_questions"})
_LEFT_OUT = "<left out>"
# Flags on which results do not depend.
_NEUTRAL = frozenset(
  {
    "workdir",
    "data_dir",
    "manual_dir",
    "cache_dir",
    "checkpoint_seconds",
    "signing_key",
    "coordinator_address",
    "num_processes",
    "process_id",
    "multiprocess",
    "debug",
  }
)


class Workdir:
  """Where a run keeps everything, locked until it is left.

  Args:
    path: a folder that does not exist, is empty, or holds a run that was
      started with the same flags.
    flags: every flag of the run, by name.
    private: whether what the run releases is sent out, as that of a certified
      one: `config.json` and `results.jsonl` are private too, and the report
      leaves out the values of flags that name records.

  Attributes:
    config: the content of `config.json`, as the run began.
    rows: the rows of `results.jsonl`.

  Raises:
    ValueError: if the folder holds something else, the run of other flags, a
      run that is under way, or a link where something private belongs.
    OSError: if it cannot be written.

  **Guarantees**: what lies below `PRIVATE` can be opened by its owner alone;
  what an older run left open is closed.
  """

  def __init__(
    self, path: str | Path, flags: dict[str, Any], *, private: bool = False
  ):
    self.path = Path(path)
    self._leave_out = private
    self._private = PRIVATE | _RECORDS if private else PRIVATE
    self._lock = None
    if processes.is_first():
      self._claim(flags)
    self._share(flags)

  def _claim(self, flags: dict[str, Any]) -> None:
    path = self.path
    if self.path.exists() and not self.path.is_dir():
      raise ValueError(f"--workdir={path} is a file; it must be a folder.")
    config = self.path / _CONFIG
    if config.exists():
      _read_config(config)  # what is not ours is refused before it is locked
    elif self.path.is_dir() and {p.name for p in self.path.iterdir()} - _BEGUN:
      raise ValueError(
        f"--workdir={path} holds files but no run of ours; it must be empty, "
        "new, or the folder of a run with the same flags."
      )
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = (self.path / _LOCK).open("w")
    except OSError as error:
      raise OSError(
        f"--workdir={path} cannot be written: {error.strerror}."
      ) from error
    try:
      self._open(flags)
    except BaseException:
      self._lock.close()
      raise

  def _open(self, flags: dict[str, Any]) -> None:
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(
        f"--workdir={self.path} is in use by another run; wait for it or "
        "choose another folder."
      ) from error
    config = self.path / _CONFIG
    if config.exists():
      self.config = _read_config(config)
      before = self.config["flags"]
      _check_same(self.path, before, json.loads(json.dumps(flags)))
    else:
      self.config = describe(flags)
      self.write(_CONFIG, json.dumps(self.config, indent=2) + "\n")
    self._tighten()
    self.rows = self._read_rows()

  def _tighten(self) -> None:
    """Takes from others what they may do with private files and folders."""
    paths = [self.path / name for name in sorted(self._private)]
    for path in paths:
      if path.is_symlink():
        raise ValueError(
          f"{path} is a link to elsewhere; what is private must lie in the "
          "run's own folder."
        )
    for path in paths:
      try:
        if path.exists():
          path.chmod(0o700 if path.is_dir() else 0o600)
      except OSError as error:
        raise OSError(
          f"{path} cannot be made private: {error.strerror}."
        ) from error

  def _share(self, flags: dict[str, Any]) -> None:
    """What the first process opened, for all."""
    if processes.is_first():
      state = {"config": self.config, "rows": self.rows}
      processes.broadcast_bytes(json.dumps(state).encode())
    else:
      state = json.loads(processes.broadcast_bytes(None))
      self.config, self.rows = state["config"], state["rows"]
      before = self.config["flags"]
      _check_same(self.path, before, json.loads(json.dumps(flags)))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._lock:
      self._lock.close()

  def __truediv__(self, name: str) -> Path:
    return self.path / name

  def write(self, name: str, text: str) -> None:
    """Replaces a file in one step, so that readers never see half of it."""
    self.write_bytes(name, text.encode())

  def write_bytes(self, name: str, content: bytes) -> None:
    """Replaces a file in one step; done by the first process alone."""
    if processes.is_first():
      private = Path(name).parts[0] in self._private
      files.replace(self.path / name, content, private=private)

  def read(self, name: str) -> bytes | None:
    """The content of a file, or None if there is no such file."""
    path, content = self.path / name, None
    if processes.is_first() and path.exists():
      content = path.read_bytes()
    return processes.broadcast_bytes(content)

  def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
    """What `write_arrays` wrote, or None if there is no such file.

    Raises:
      ValueError: if the file is damaged.
    """
    content = self.read(name)
    if content is None:
      return None
    try:
      with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
      raise ValueError(
        f"{self.path / name} is damaged ({error}); delete it to have it "
        "computed again."
      ) from error

  def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Replaces a file of NumPy arrays (`.npz`) in one step."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    self.write_bytes(name, buffer.getvalue())

  def write_report(self, **page: Any) -> Path:
    """Replaces the report; `page` as for `report.write`.

    A page without chapters is of all the run's rows.
    """
    if processes.is_first():
      rows = {} if "chapters" in page else {"rows": self.rows}
      config = self.config
      if self._leave_out:
        config = _without_records(config)
      report.write(self.path, config=config, **rows, **page)
    return self.path / "report.html"

  def add_row(self, row: dict[str, Any]) -> None:
    """Adds a row to `results.jsonl`."""
    lines = [json.dumps(each) for each in [*self.rows, row]]
    self.write(_RESULTS, "\n".join(lines) + "\n")
    self.rows.append(row)

  def row(self, method: str, seed: int, **more: Any) -> dict[str, Any] | None:
    """The row of a method and seed, and of what else names it, or None."""
    wanted = {"method": method, "seed": seed, **more}
    for row in self.rows:
      if all(row.get(key) == value for key, value in wanted.items()):
        return row
    return None

  def _read_rows(self) -> list[dict[str, Any]]:
    path = self.path / _RESULTS
    if not path.exists():
      return []
    try:
      rows = [json.loads(line) for line in path.read_text().splitlines()]
      {(row["method"], row["seed"]): row["metrics"].items() for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise ValueError(
        f"{path} is damaged ({error}); restore it or choose another --workdir."
      ) from error
    return rows


def read_config(path: str | Path) -> dict[str, Any]:
  """The `config.json` of a run's folder.

  Raises:
    ValueError: if the folder holds none.
  """
  config = Path(path) / _CONFIG
  if not config.exists():
    raise ValueError(f"{path} holds no {_CONFIG}; it is not a run's folder.")
  return _read_config(config)


def restore_flags(path: str | Path) -> None:
  """Sets the flags to those of a run, but for where things lie here.

  Raises:
    ValueError: if the folder holds no run, or a flag has a value that is not
      one of its own.
  """
  for name, value in read_config(path)["flags"].items():
    if name in FLAGS and name not in _NEUTRAL:
      _restore(FLAGS[name], value)


def _restore(flag: Flag, value: Any) -> None:
  """Sets a flag to what JSON holds of it, by way of the command line's form."""
  try:
    if value is None:
      flag.unparse()
      flag.value = None
    else:
      words = ",".join(value) if isinstance(value, list) else value
      flag.parse(words if isinstance(words, str) else json.dumps(words))
    found = json.loads(json.dumps(flag.value))
  except (Error, ValueError, TypeError) as error:
    raise ValueError(f"{_CONFIG}: --{flag.name}: {error}") from error
  if (type(found), found) != (type(value), value):
    raise ValueError(
      f"{_CONFIG}: --{flag.name} is {value!r}; it must be of the type of "
      f"{flag.default!r}."
    )


def describe(flags: dict[str, Any]) -> dict[str, Any]:
  """The content of `config.json`: flags, versions, devices, commit."""
  packages = ("jax", "jaxlib", "flax", "optax", "numpy")
  devices = jax.devices()
  module = _module_name()
  return {
    "experiment": module.removeprefix("experiments."),
    "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    "flags": flags,
    "versions": {
      "python": sys.version.split()[0],
      **{package: metadata.version(package) for package in packages},
    },
    "device": {
      "kind": devices[0].device_kind,
      "count": len(devices),
      "processes": jax.process_count(),
      "cores": len(os.sched_getaffinity(0)),
    },
    "commit": _commit(),
  }


def _without_records(config: dict[str, Any]) -> dict[str, Any]:
  """The config without the values of flags that name records."""
  given = [name for name in _NAMING if config["flags"].get(name) is not None]
  spelled = {f"{dashes}{name}" for name in given for dashes in ("-", "--")}
  shown = []
  words = shlex.split(config["command"])
  for before, word in itertools.pairwise(["", *words]):
    flag, equals, _ = word.partition("=")
    if flag in spelled and equals:
      shown.append(f"{flag}={_LEFT_OUT}")
    else:  # the value may also be a word of its own
      shown.append(_LEFT_OUT if before in spelled else word)
  return {
    **config,
    "command": shlex.join(shown),
    "flags": config["flags"] | dict.fromkeys(given, _LEFT_OUT),
  }


def _module_name() -> str:
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  return spec.name.removesuffix(".__main__") if spec else sys.argv[0]


def _commit() -> str:
  """The checked-out commit, with a plus sign if files have changed since."""

  def git(*arguments):
    return subprocess.run(
      ["git", *arguments],
      cwd=Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
  except (OSError, subprocess.CalledProcessError):
    return "unknown"


def _read_config(path: Path) -> dict[str, Any]:
  try:
    config = json.loads(path.read_text())
    config["flags"].keys()
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{path} is not the config.json of a run; choose another --workdir."
    ) from error
  return config


def _check_same(path, before: dict[str, Any], now: dict[str, Any]) -> None:
  names = sorted((before.keys() | now.keys()) - _NEUTRAL)
  changed = [
    f"--{name} was {before.get(name)!r} and is {now.get(name)!r}"
    for name in names
    if before.get(name) != now.get(name)
  ]
  if changed:
    raise ValueError(
      f"--workdir={path} holds a run with other flags ({'; '.join(changed)}); "
      "repeat its flags or choose another folder."
    )
