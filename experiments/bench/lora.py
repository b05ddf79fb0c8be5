"""What adapters save against training all weights of a decoder.

    python -m experiments.bench.lora [--widths=64,256] [--out=FILE]

Both sides take the same steps of the same model, with Adam: one of all weights,
one of adapters on every dense layer of its blocks. Gradients and optimizer
state have one and two numbers for each free parameter. Memory is what the
compiled step needs at once, the model itself included; steps are timed in turn,
and the ratio is the median over repeats.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import flags

from experiments.bench import page, timing
from experiments.run import tables
from junlearn import language
from junlearn.descent import gradient_descent
from junlearn.model import Model
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import transformer
from junlearn.objective import weighted
from junlearn.transform import Request
from junlearn.view import View, full

_WIDTHS = flags.DEFINE_list(
  "widths", ["64", "256"], "Widths of the decoders; 2048 is for a GPU."
)
_RANK = page.integer("rank", 8, "Rank of the adapters.")
_LAYERS = page.integer("layers", 3, "Blocks of a decoder.")
_ROWS = page.integer("rows", 8, "Sequences of a batch.")
_LENGTH = page.integer("length", 64, "Tokens of a sequence.", least=2)
_DTYPE = flags.DEFINE_enum(
  "dtype",
  "float32",
  ["float32", "bfloat16"],
  "Number type of weights and computation.",
)
_STEPS = page.integer("steps", 5, "Training steps that are timed at once.")
_REPEATS = page.repeats(15)


class _Side(NamedTuple):
  """One way to train: parameters and bytes, and a call of some steps."""

  num_free: int
  gradient: int
  optimizer: int
  memory: tuple[int, int]
  run: Callable[[], object]


def _measure() -> Iterator[str]:
  """The table: two rows for each width."""
  widths = page.numbers(_WIDTHS, least=16, multiple_of=8)
  yield from tables.header([
    "width", "trained", "parameters", "gradient MB", "optimizer MB", "step MB",
    "of which scratch", "step ms", "time, of all", "min to max",
  ])  # fmt: skip
  for width in widths:
    sides = _sides(width)
    times = timing.alternate(
      {name: side.run for name, side in sides.items()}, _REPEATS.value
    )
    for name, side in sides.items():
      sizes = (side.gradient, side.optimizer, *side.memory)
      step = statistics.median(times[name]) / _STEPS.value
      yield tables.row(
        [
          *(width, name, f"{side.num_free:,}"),
          *(f"{size / 1e6:.2f}" for size in sizes),
          f"{1e3 * step:.2f}",
          *timing.ratio(times[name], times["all"]).cells,
        ]
      )


def _sides(width: int) -> dict[str, _Side]:
  """Both ways to train a decoder of some width."""
  config = transformer.Config(
    vocab_size=512,
    hidden_size=width,
    intermediate_size=3 * width,
    num_layers=_LAYERS.value,
    num_heads=max(4, width // 64),
    num_kv_heads=max(4, width // 64),
    max_length=_LENGTH.value,
    dtype=_DTYPE.value,
    param_dtype=_DTYPE.value,
  )
  model, key = transformer.model(config), jax.random.key(0)
  shape = (_ROWS.value, _LENGTH.value)
  tokens = jax.random.randint(key, shape, 0, config.vocab_size)
  examples = {"input": tokens, "mask": jnp.ones(shape, bool)}
  params = model.init(key, tokens)
  adapters = Lora("layers", _RANK.value, 2.0 * _RANK.value)
  return {
    "all": _side(model, full(), params, examples),
    f"adapters, r = {_RANK.value}": _side(
      adapters.model(model),
      adapters.view(),
      adapters.init(key, params),
      examples,
    ),
  }


def _side(model: Model, view: View, params: Any, examples: Any) -> _Side:
  """A compiled step of training, and its state behind it."""
  descent = gradient_descent(
    weighted(language.cross_entropy(model), retain=1.0),
    optax.adam(1e-4),
    num_steps=1,
    batch_size=_ROWS.value,
    view=view,
  )
  request = Request(None, examples)
  state, xs = descent.init(jax.random.key(0), params, request)
  free = jax.tree.leaves(view.split(params)[0])
  state = jax.tree.map(jnp.copy, state)  # the step overwrites it
  arguments = jax.tree.map(lambda leaf: leaf[0], xs), (request, params)
  step = jax.jit(descent.step, donate_argnums=0)
  step = step.lower(state, *arguments).compile()

  def run():
    nonlocal state
    for _ in range(_STEPS.value):
      state, info = step(state, *arguments)
    jax.block_until_ready((state, info))

  run()
  return _Side(
    sum(leaf.size for leaf in free),
    _bytes(free),
    _bytes(state.optimizer),
    timing.memory(step),
    run,
  )


def _bytes(leaves: Any) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))


if __name__ == "__main__":
  page.start("What adapters save", _measure)
