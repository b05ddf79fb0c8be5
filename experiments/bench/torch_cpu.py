"""junlearn against plain eager PyTorch on the CPU, doing the same work.

    python -m experiments.bench.torch_cpu [--repeats=5] [--out=FILE]

Both sides may use all cores that the process may (`taskset -c 0` gives one);
PyTorch is timed with one thread and with all, and the faster counts at every
repeat. Other programs on the same cores disturb PyTorch's threads more than
JAX's: read the ratios together with the load average printed with them.
"""

import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from absl import app, flags

_REPEATS = flags.DEFINE_integer(
  "repeats", 5, "Times that each side is measured.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Write the table here, as Markdown.")
_ONLY = flags.DEFINE_multi_enum(
  "only",
  None,
  ["training", "adversarial", "population"],
  "Measure this part only; may be repeated.",
)


def _processor() -> str:
  """The processor's name as the system knows it."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or "unknown processor"
  names = [
    line.split(":")[1] for line in lines if line.startswith("model name")
  ]
  return names[0].strip() if names else "unknown processor"


def _conditions(before: tuple[float, ...]) -> str:
  """Machine, load, versions, command and commit, as Markdown."""
  from experiments.workdir import describe

  record = describe({})
  packages = {**record["versions"], "torch": metadata.version("torch")}
  versions = ", ".join(f"{name} {v}" for name, v in packages.items())
  after = os.getloadavg()
  return "\n".join(
    [
      f"- machine: {_processor()}, {record['device']['cores']} cores",
      f"- load average: {before[0]:.1f} at the start, {after[0]:.1f} at the "
      "end (the benchmark's own threads included)",
      f"- versions: {versions}",
      "- command: python -m experiments.bench.torch_cpu "
      f"{shlex.join(sys.argv[1:])}".rstrip(),
      f"- commit: {record['commit']}",
    ]
  )


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the table."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  if importlib.util.find_spec("torch") is None:
    sys.exit(
      "error: PyTorch is missing; install the `bench` extra, e.g. "
      "`pip install 'junlearn[bench]'`."
    )
  # Both are slow to import, and --help needs neither.
  from experiments.bench import cases, timing

  before = os.getloadavg()
  parts = {
    "training": cases.training,
    "adversarial": cases.adversarial,
    "population": cases.population,
  }
  comparisons = []
  for name in _ONLY.value or parts:
    for comparison in parts[name](_REPEATS.value):
      comparisons.append(comparison)
      print(timing.markdown([comparison]).splitlines()[-1], flush=True)
  text = f"{timing.markdown(comparisons)}\n\n{_conditions(before)}\n"
  print(f"\n{text}")
  if _OUT.value:
    Path(_OUT.value).write_text(f"# junlearn and PyTorch on the CPU\n\n{text}")


if __name__ == "__main__":
  app.run(main)
