"""How a benchmark is started, and the Markdown page that it writes."""

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from absl import app, flags

from experiments.run.workdir import describe

OUT = flags.DEFINE_string(
  "out", None, "Write the page to this file, as Markdown."
)

# What is defined below belongs to the benchmark that asks for it.
flags.disclaim_key_flags()


def integer(
  name: str, default: int, help: str, *, least: int = 1
) -> flags.FlagHolder[int]:
  """Defines the flag of a whole number."""
  return flags.DEFINE_integer(name, default, help, lower_bound=least)


def repeats(default: int) -> flags.FlagHolder[int]:
  """Defines `--repeats`."""
  return integer("repeats", default, "Times that each side is measured.")


def only(parts: Iterable[str]) -> flags.FlagHolder[list[str] | None]:
  """Defines `--only`, which chooses among the parts of a benchmark."""
  return flags.DEFINE_multi_enum(
    "only", None, list(parts), "Measure this part only; may be repeated."
  )


def numbers(
  flag: flags.FlagHolder[list[str]], *, least: int, multiple_of: int = 1
) -> list[int]:
  """The values of a list flag.

  Raises:
    ValueError: naming the flag, if there are none or one is not allowed.
  """
  values = [int(word) if word.isdecimal() else 0 for word in flag.value]
  if not values or min(values) < least or any(v % multiple_of for v in values):
    each = f", each a multiple of {multiple_of}" if multiple_of > 1 else ""
    raise ValueError(
      f"--{flag.name} is {','.join(flag.value)}; it must be numbers of at "
      f"least {least}{each}."
    )
  return values


def start(
  title: str, measure: Callable[[], Iterable[str]], packages: Sequence[str] = ()
) -> None:
  """Parses the flags, then prints the page line by line and writes `--out`.

  A `ValueError` ends the program with its sentence and exit code 1. The lines
  measured before an end of any kind are written all the same.

  Args:
    title: of the page.
    measure: gives the lines of the page.
    packages: optional ones that it needs, whose versions the page tells, too.
  """
  flags.adopt_module_key_flags(sys.modules[__name__])

  def main(arguments: Sequence[str]) -> None:
    if len(arguments) > 1:
      sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
    for name in packages:
      if importlib.util.find_spec(name) is None:
        sys.exit(
          f"error: the package {name} is missing; install the extra `oracles`, "
          "e.g. `pip install 'junlearn[oracles]'`."
        )
    folder = Path(OUT.value or ".").absolute().parent
    if (Path(OUT.value or "").is_dir() and OUT.value) or not folder.is_dir():
      sys.exit(
        f"error: --out={OUT.value}; it must be a file in a folder that exists."
      )
    before, lines = os.getloadavg(), []
    try:
      for line in measure():
        lines.append(line)
        print(line, flush=True)
    except ValueError as error:
      sys.exit(f"error: {error}")
    finally:
      if lines:
        foot = "\n".join(_conditions(before, packages))
        print(f"\n{foot}")
        if OUT.value:
          body = "\n".join(lines)
          Path(OUT.value).write_text(f"# {title}\n\n{body}\n\n{foot}\n")

  app.run(main)


def _conditions(
  before: tuple[float, ...], packages: Sequence[str]
) -> Iterator[str]:
  """Machine, load, versions, command and commit."""
  record = describe({})
  device, after = record["device"], os.getloadavg()
  versions = record["versions"] | {n: metadata.version(n) for n in packages}
  yield (
    f"- machine: {_processor()}, {device['cores']} cores; "
    f"{device['count']} device(s) of kind {device['kind']}"
  )
  yield (
    f"- load average: {before[0]:.1f} at the start, {after[0]:.1f} at the "
    "end (the benchmark's own threads included)"
  )
  yield f"- versions: {', '.join(' '.join(pair) for pair in versions.items())}"
  yield f"- command: {record['command']}"
  yield f"- commit: {record['commit']}"


def _processor() -> str:
  """The processor's name as the system knows it."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or "unknown processor"
  names = (line.split(":")[1] for line in lines if line.startswith("model n"))
  return next(names, "unknown processor").strip()
