"""junlearn against plain eager PyTorch on the CPU, doing the same work.

    python -m experiments.bench.torch_cpu [--repeats=5] [--out=FILE]

Both sides may use all cores that the process may (`taskset -c 0` gives one);
PyTorch is timed with one thread and with all, and the faster counts at every
repeat. Other programs on the same cores disturb PyTorch's threads more than
JAX's: read the ratios together with the load average printed with them.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

_REPEATS = flags.DEFINE_integer(
  "repeats", 5, "Times that each side is measured.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Write the table here, as Markdown.")
_ONLY = flags.DEFINE_multi_enum(
  "only",
  None,
  ["training", "products", "adversarial", "population"],
  "Measure this part only; may be repeated.",
)


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the table."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  if importlib.util.find_spec("torch") is None:
    sys.exit(
      "error: PyTorch is missing; install the `bench` extra, e.g. "
      "`pip install 'junlearn[oracles]'`."
    )
  # Both are slow to import, and --help needs neither.
  from experiments.bench import cases, timing
  from experiments.bench.conditions import conditions

  before = os.getloadavg()
  parts = {
    "training": cases.training,
    "products": cases.products,
    "adversarial": cases.adversarial_examples,
    "population": cases.population,
  }
  comparisons = []
  for name in _ONLY.value or parts:
    for comparison in parts[name](_REPEATS.value):
      comparisons.append(comparison)
      print(timing.markdown([comparison]).splitlines()[-1], flush=True)
  text = f"{timing.markdown(comparisons)}\n\n{conditions(before, ['torch'])}\n"
  print(f"\n{text}")
  if _OUT.value:
    Path(_OUT.value).write_text(f"# junlearn and PyTorch on the CPU\n\n{text}")


if __name__ == "__main__":
  app.run(main)
