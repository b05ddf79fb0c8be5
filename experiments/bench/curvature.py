"""What a product with a Hessian costs, and an exact diagonal Fisher.

    python -m experiments.bench.curvature [--repeats=9] [--out=FILE]

Products are compared with one gradient of the same net on the same examples.
The diagonal is compared with the loop over single examples that PyTorch codes
of Fisher forgetting take, with one thread and with all; the faster counts.
Sides are timed in turn; the ratio is the median over repeats. In a loop, the
compiler takes what all products share out of it.
"""

import functools
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen

from experiments.bench import timing
from experiments.bench.conditions import conditions
from junlearn import curvature
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.nn import CNN, MLP

_REPEATS = flags.DEFINE_integer(
  "repeats", 9, "Times that each side is measured.", lower_bound=1
)
_EXAMPLES = flags.DEFINE_integer(
  "examples", 200, "Examples of the diagonal.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Write the tables here, as Markdown.")

_CLASSES, _LOOP = 10, 10
_MOST, _LEAST = 2.5, 3.0  # a product over a gradient; PyTorch over junlearn


class _Attention(linen.Module):
  """Two pre-norm blocks of attention, as in a transformer, and a head."""

  @linen.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for _ in range(2):
      y = linen.LayerNorm()(x)
      x = x + linen.MultiHeadDotProductAttention(num_heads=4)(y)
      y = linen.gelu(linen.Dense(4 * x.shape[-1])(linen.LayerNorm()(x)))
      x = x + linen.Dense(x.shape[-1])(y)
    return linen.Dense(_CLASSES)(jnp.mean(x, axis=1))


# Module, shape of the inputs, and examples that are read at once.
_NETS = {
  "MLP 784-128-10, 4096 examples": (MLP(_CLASSES), (4096, 784), None),
  "CNN 28x28x1, 512 examples": (CNN(_CLASSES), (512, 28, 28, 1), None),
  "attention 2x64, 32 tokens, 64 examples": (
    _Attention(),
    (64, 32, 64),
    None,
  ),
  "the same, 16 at a time": (_Attention(), (64, 32, 64), 16),
}


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the tables."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  if importlib.util.find_spec("torch") is None:
    sys.exit(
      "error: PyTorch is missing; install the `bench` extra, e.g. "
      "`pip install 'junlearn[oracles]'`."
    )
  before = os.getloadavg()
  lines = []
  for line in (*_products(), "", *_diagonals()):
    lines.append(line)
    print(line, flush=True)
  text = "\n".join([*lines, "", conditions(before, ["torch"])])
  if _OUT.value:
    Path(_OUT.value).write_text(f"# What curvature costs\n\n{text}\n")


def _products() -> Iterator[str]:
  """The table of products over gradients."""
  yield _line(
    *("net", "product", "gradient s", "product s", "ratio", "min to max"),
    *("at most", "", f"one of {_LOOP} in a loop"),
  )
  yield "|---" * 9 + "|"
  for name, (module, shape, size) in _NETS.items():
    model, examples = from_linen(module), _random(shape)
    loss = cross_entropy(model)
    params = jax.jit(model.init)(jax.random.key(0), examples["input"][:1])
    operators = {
      "Hessian": functools.partial(curvature.hessian, loss),
      "Gauss-Newton": functools.partial(curvature.gauss_newton, model),
    }

    def gradient(params, examples, loss=loss, size=size):
      return curvature.gradient(loss, params, examples, batch_size=size)

    sides = {"gradient": gradient}
    for product, operator in operators.items():
      make = functools.partial(operator, batch_size=size)
      sides[product] = lambda p, e, make=make: make(p, e)(p)
      sides[product, _LOOP] = lambda p, e, make=make: _repeated(make(p, e), p)
    times = timing.alternate(
      {k: _compiled(side, params, examples) for k, side in sides.items()},
      _REPEATS.value,
    )
    for product in operators:
      once = _ratios(times[product], times["gradient"])
      many = _ratios(times[product, _LOOP], times["gradient"])
      passed = "passed" if once.median <= _MOST else "failed"
      looped = f"{many.median / _LOOP:.2f}"
      yield _line(name, product, *once.cells, _MOST, passed, looped)


def _repeated(matvec: curvature.Matvec, v: Any) -> Any:
  """Products in a loop, as a solver takes them."""

  def step(_, v):
    return jax.tree.map(lambda a, b: a / 2 + b, v, matvec(v))

  return jax.lax.fori_loop(0, _LOOP, step, v)


def _diagonals() -> Iterator[str]:
  """The table of diagonals, junlearn and PyTorch."""
  yield _line(
    *("diagonal Fisher", "junlearn s", "PyTorch s", "ratio", "min to max"),
    *("at least", "", "difference"),
  )
  yield "|---" * 8 + "|"
  import torch  # slow to import, and --help does not need it

  from experiments.bench import eager, eager_fisher

  model, shape = from_linen(CNN(_CLASSES)), (28, 28, 1)
  examples = _random((_EXAMPLES.value, *shape))
  params = jax.jit(model.init)(jax.random.key(0), examples["input"][:1])
  net = eager.CNN(params, shape[:2])
  inputs = eager.images(examples["input"])
  labels = torch.from_numpy(np.array(examples["label"], np.int64))
  for kind in ("observed", "expected"):
    ours = _compiled(
      lambda p, e, kind=kind: curvature.diagonal_fisher(
        model, p, e, labels=kind
      ),
      params,
      examples,
    )
    loop = functools.partial(
      eager_fisher.diagonal_fisher,
      net,
      inputs,
      labels,
      expected=kind == "expected",
    )

    def threaded(count, loop=loop):
      torch.set_num_threads(count)
      return loop()

    sides = {
      count: functools.partial(threaded, count)
      for count in {1, len(os.sched_getaffinity(0))}
    }
    # The sums over each leaf do not depend on how a net lays out its weights.
    traces = [
      sorted(float(leaf.sum()) for leaf in leaves)
      for leaves in (jax.tree.leaves(ours()), loop())
    ]
    difference = np.max(np.abs(np.subtract(*traces)) / np.add(*traces))
    times = timing.alternate({"junlearn": ours, **sides}, _REPEATS.value)
    theirs = [
      min(pair) for pair in zip(*(times[t] for t in sides), strict=True)
    ]
    row = _ratios(theirs, times["junlearn"])
    passed = "passed" if row.median >= _LEAST else "failed"
    yield _line(
      f"{kind} labels, CNN 28x28x1, {_EXAMPLES.value} examples",
      *(*row.cells, _LEAST, passed, f"{difference:.0e}"),
    )


class _Ratios(NamedTuple):
  median: float
  cells: tuple[str, ...]


def _ratios(above: Sequence[float], below: Sequence[float]) -> _Ratios:
  """Times of two sides in turn: both medians, and their ratio's."""
  ratios = [a / b for a, b in zip(above, below, strict=True)]
  middle = statistics.median(ratios)
  cells = (
    f"{statistics.median(below):.4f}",
    f"{statistics.median(above):.4f}",
    f"{middle:.2f}",
    f"{min(ratios):.2f} to {max(ratios):.2f}",
  )
  return _Ratios(middle, cells)


def _line(*cells: object) -> str:
  return f"| {' | '.join(map(str, cells))} |"


def _compiled(function: Callable[..., Any], *arguments: Any):
  """The function of these arguments, compiled and run once."""
  program = jax.jit(function).lower(*arguments).compile()

  def run():
    return jax.block_until_ready(program(*arguments))

  run()
  return run


def _random(shape: Sequence[int]) -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {
    "input": jnp.asarray(rng.normal(size=shape), jnp.float32),
    "label": jnp.asarray(rng.integers(0, _CLASSES, shape[0]), jnp.int32),
  }


if __name__ == "__main__":
  app.run(main)
