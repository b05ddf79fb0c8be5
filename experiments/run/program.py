"""Flags, start and end that all experiments share."""

import contextlib
import difflib
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

from experiments.run import job

_CACHE = os.path.join(os.path.expanduser("~"), ".cache", "junlearn")

flags.DEFINE_string(
  "data_dir",
  os.path.join(_CACHE, "data"),
  "Where prepared data sets are kept.",
)
flags.DEFINE_string(
  "manual_dir",
  None,
  "Where the official files of a data set lie, if they are not to be "
  "downloaded.",
)
flags.DEFINE_string(
  "cache_dir",
  os.path.join(_CACHE, "compiled"),
  "Where compiled programs are kept for the next run; empty for nowhere.",
)
flags.DEFINE_float(
  "checkpoint_seconds",
  10.0,
  "Least seconds between two checkpoints of a phase under way.",
  lower_bound=0.0,
)
flags.register_validator(
  "checkpoint_seconds", math.isfinite, "--checkpoint_seconds must be finite."
)
flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")
flags.adopt_module_key_flags(job)


def start(main: Callable[[Sequence[str]], None]) -> None:
  """Parses the flags and runs `main` on what else was given.

  What a user can mend (`ValueError`, `OSError`, `ArithmeticError`) ends the
  program with one sentence and exit code 1, Ctrl-C with exit code 130. In a
  job of several processes, so does the end of another one.
  """

  def run(arguments: Sequence[str]) -> None:
    if not flags.FLAGS.debug:
      logging.set_verbosity(logging.FATAL)  # orbax logs what it also raises
      sys.unraisablehook = _unless_raised
    signal.signal(signal.SIGINT, _interrupt)
    _cache_compiled(flags.FLAGS.cache_dir)
    try:
      job.join(quiet=not flags.FLAGS.debug)
      main(arguments[1:])
    except Exception as error:
      mendable = isinstance(error, (ArithmeticError, OSError, ValueError))
      in_job = jax.distributed.is_initialized()
      if not (mendable or in_job):
        raise
      told = mendable or isinstance(error, jax.errors.JaxRuntimeError)
      if flags.FLAGS.debug or not told:
        traceback.print_exc()
      job.leave(error)

  app.run(run)


def no_arguments(arguments: Sequence[str]) -> None:
  """Refuses arguments that are no flags.

  Raises:
    ValueError: naming the first.
  """
  if arguments:
    raise ValueError(f"unexpected argument {arguments[0]!r}; see --help.")


def choose(flag: str, values: Sequence[str], allowed: Collection[str]) -> None:
  """Checks the values of a list flag.

  Raises:
    ValueError: naming the first value that is not allowed, the nearest one
      that is, and all that are; or a value that occurs twice.
  """
  for value in values:
    if value not in allowed:
      near = difflib.get_close_matches(value, allowed, n=1, cutoff=0.4)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise ValueError(
        f"--{flag}: {value!r} is unknown; {hint}"
        f"Allowed are {', '.join(allowed)}."
      )
    if list(values).count(value) > 1:
      raise ValueError(f"--{flag}: {value!r} occurs twice; once is enough.")


def numbers(flag: str, allowed: Collection[str]) -> dict[str, float]:
  """The values of a list flag of `name=number`, by name.

  Raises:
    ValueError: as `choose`, or naming the first that is not finite or below 0.
  """
  given = [text.partition("=")[::2] for text in flags.FLAGS[flag].value]
  choose(flag, [name for name, _ in given], allowed)
  found = {}
  for name, value in given:
    try:
      found[name] = float(value)
    except ValueError:
      found[name] = math.nan
    if not 0 <= found[name] < math.inf:
      raise ValueError(
        f"--{flag}: {name} has {value!r}; it must be a finite number of at "
        "least 0."
      )
  return found


@contextlib.contextmanager
def naming(flag: str) -> Iterator[None]:
  """Puts the flag and its value before the words of a `ValueError`."""
  try:
    yield
  except ValueError as error:
    given = flags.FLAGS[flag].serialize() or f"--{flag}"
    raise ValueError(f"{given}: {error}") from error


def own_flags() -> dict[str, object]:
  """The values of the program's flags and of those it adopted, by name."""
  # absl files the flags of the program itself under the name of its script.
  own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
  return {flag.name: flag.value for flag in own}


def _unless_raised(found: Any) -> None:
  """Drops what orbax's threads still report once their save has raised."""
  if "Event loop is closed" not in str(found.exc_value):
    sys.__unraisablehook__(found)


def _interrupt(*_: object) -> NoReturn:
  """Ends the program at once.

  What is on disk is complete at every moment. A KeyboardInterrupt would be
  lost where Python cannot raise it, as in JAX's callback of the collector.
  """
  newline = "\n" if sys.stderr.isatty() else ""
  line = f"{newline}interrupted; the same command continues.\n"
  os.write(sys.stderr.fileno(), line.encode())
  os._exit(130)


def _cache_compiled(directory: str) -> None:
  if directory:
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
