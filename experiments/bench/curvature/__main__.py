"""What a product with a Hessian costs, and an exact diagonal Fisher.

    python -m experiments.bench.curvature [--repeats=9] [--out=FILE]

Products are compared with one gradient of the same net on the same examples.
The diagonal is compared with the loop over single examples that PyTorch codes
of Fisher forgetting take, with one thread and with all; the faster counts.
Sides are timed in turn; the ratio is the median over repeats. In a loop, the
compiler takes what all products share out of it.
"""

import functools
import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from experiments.bench import page, timing
from experiments.run import tables
from junlearn import curvature
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.nn import CNN, MLP

_REPEATS = page.repeats(9)
_EXAMPLES = page.integer(
  "examples", 200, "Examples over which the diagonal Fisher is taken."
)

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
  "attention 2x64, 32 tokens, 64 examples": (_Attention(), (64, 32, 64), None),
  "the same, 16 at a time": (_Attention(), (64, 32, 64), 16),
}


def _products() -> Iterator[str]:
  """The table of products over gradients."""
  yield from tables.header([
    "net", "product", "gradient s", "product s", "ratio", "min to max",
    "at most", "", f"one of {_LOOP} in a loop",
  ])  # fmt: skip
  for name, (module, shape, size) in _NETS.items():
    model, examples = from_linen(module), _random(shape)
    loss = cross_entropy(model)
    params = jax.jit(model.init)(jax.random.key(0), examples["input"][:1])
    operators = {
      "Hessian": functools.partial(curvature.hessian, loss),
      "Gauss-Newton": functools.partial(curvature.gauss_newton, model),
    }
    sides = {
      "gradient": functools.partial(curvature.gradient, loss, batch_size=size)
    }
    for product, operator in operators.items():
      make = functools.partial(operator, batch_size=size)
      sides[product] = lambda p, e, make=make: make(p, e)(p)
      sides[product, _LOOP] = lambda p, e, make=make: _repeated(make(p, e), p)
    programs = {
      key: timing.compiled(side, params, examples).run
      for key, side in sides.items()
    }
    times = timing.alternate(programs, _REPEATS.value)
    for product in operators:
      once = timing.ratio(times[product], times["gradient"])
      many = timing.ratio(times[product, _LOOP], times["gradient"])
      yield tables.row(
        [
          *(name, product),
          *_seconds(times["gradient"], times[product]),
          *(*once.cells, _MOST, tables.verdict(once.median <= _MOST)),
          f"{many.median / _LOOP:.2f}",
        ]
      )


def _repeated(matvec: curvature.Matvec, v: Any) -> Any:
  """Products in a loop, as a solver takes them."""

  def step(_, v):
    return jax.tree.map(lambda a, b: a / 2 + b, v, matvec(v))

  return jax.lax.fori_loop(0, _LOOP, step, v)


def _diagonals() -> Iterator[str]:
  """The table of diagonals, junlearn and PyTorch."""
  # Slow to import, and --help does not need it.
  from experiments.bench.eager import cnn, fisher, threads

  yield from tables.header([
    "diagonal Fisher", "junlearn s", "PyTorch s", "ratio", "min to max",
    "at least", "", "difference",
  ])  # fmt: skip
  model, shape = from_linen(CNN(_CLASSES)), (28, 28, 1)
  examples = _random((_EXAMPLES.value, *shape))
  params = jax.jit(model.init)(jax.random.key(0), examples["input"][:1])
  net = cnn.CNN(params, shape[:2])
  for kind in ("observed", "expected"):
    exact = functools.partial(curvature.diagonal_fisher, model, labels=kind)
    ours = timing.compiled(exact, params, examples).run
    theirs = functools.partial(
      fisher.diagonal_fisher,
      *(net, *cnn.tensors(examples)),
      expected=kind == "expected",
    )
    # The sums over each leaf do not depend on how a net lays out its weights.
    traces = [
      sorted(float(leaf.sum()) for leaf in leaves)
      for leaves in (jax.tree.leaves(ours()), theirs())
    ]
    difference = np.max(np.abs(np.subtract(*traces)) / np.add(*traces))
    sides = {
      count: functools.partial(threads.limited, count, theirs)
      for count in threads.COUNTS
    }
    times = timing.alternate({"junlearn": ours, **sides}, _REPEATS.value)
    taken = threads.fastest(times[count] for count in sides)
    found = timing.ratio(taken, times["junlearn"])
    yield tables.row(
      [
        f"{kind} labels, CNN 28x28x1, {_EXAMPLES.value} examples",
        *_seconds(times["junlearn"], taken),
        *(*found.cells, _LEAST, tables.verdict(found.median >= _LEAST)),
        f"{difference:.0e}",
      ]
    )


def _seconds(*sides: Sequence[float]) -> list[str]:
  return [f"{statistics.median(side):.4f}" for side in sides]


def _random(shape: Sequence[int]) -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {
    "input": jnp.asarray(rng.normal(size=shape), jnp.float32),
    "label": jnp.asarray(rng.integers(0, _CLASSES, shape[0]), jnp.int32),
  }


if __name__ == "__main__":
  page.start(
    "What curvature costs",
    lambda: itertools.chain(_products(), [""], _diagonals()),
    ["torch"],
  )
