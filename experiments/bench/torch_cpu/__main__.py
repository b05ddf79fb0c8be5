"""junlearn against plain eager PyTorch on the CPU, doing the same work.

    python -m experiments.bench.torch_cpu [--repeats=5] [--out=FILE]

Both sides may use all cores that the process may (`taskset -c 0` gives one);
PyTorch is timed with one thread and with all, and the faster counts at every
repeat. Other programs on the same cores disturb PyTorch's threads more than
JAX's: read the ratios together with the load average printed with them.
"""

import itertools
from collections.abc import Iterator

from experiments.bench import page, timing

_PARTS = ("training", "products", "adversarial", "population")
_REPEATS = page.repeats(5)
_ONLY = page.only(_PARTS)


def _measure() -> Iterator[str]:
  # These are slow to import, and --help needs none of them.
  from experiments.bench.torch_cpu import adversarial, products, training

  parts = {
    "training": training.single,
    "products": products.compare,
    "adversarial": adversarial.compare,
    "population": training.population,
  }
  return timing.table(
    itertools.chain.from_iterable(
      parts[name](_REPEATS.value) for name in _ONLY.value or _PARTS
    )
  )


if __name__ == "__main__":
  page.start("junlearn and PyTorch on the CPU", _measure, ["torch"])
