"""Flags, start and end that all experiments share."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence

import jax
from absl import app, flags, logging

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
flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")


def start(main: Callable[[], None]) -> None:
  """Parses the flags and runs `main`.

  What a user can mend (`ValueError`, `OSError`, `ArithmeticError`) ends the
  program with one sentence and exit code 1, Ctrl-C with exit code 130.
  """

  def run(arguments: Sequence[str]) -> None:
    if len(arguments) > 1:
      sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
    logging.set_verbosity(logging.ERROR)
    logging.set_stderrthreshold(logging.FATAL)
    _cache_compiled(flags.FLAGS.cache_dir)
    try:
      main()
    except KeyboardInterrupt:
      print("interrupted; the same command continues.", file=sys.stderr)
      sys.exit(130)
    except (ArithmeticError, OSError, ValueError) as error:
      if flags.FLAGS.debug:
        traceback.print_exc()
      sys.exit(f"error: {' '.join(str(error).split())}")

  app.run(run)


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


def own_flags() -> dict[str, object]:
  """The values of the program's flags and of those defined here, by name."""
  by_module = flags.FLAGS.flags_by_module_dict()
  # absl files the flags of the program itself under the name of its script.
  return {
    flag.name: flag.value
    for module in (sys.argv[0], __name__)
    for flag in by_module.get(module, ())
    if flag.name != "debug"
  }


def _cache_compiled(directory: str) -> None:
  if directory:
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
