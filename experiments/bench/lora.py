"""What adapters save against training all weights of a decoder.

    python -m experiments.bench.lora [--widths=64,256] [--out=FILE]

Both sides take the same steps of the same model, with Adam: one of all weights,
one of adapters on every dense map of its layers. Gradients and optimiser state
have one and two numbers for each that is free. Memory is what the compiled step
needs at once, the model itself included; steps are timed in turn, and the ratio
is the median over repeats.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import app, flags

from experiments.bench import timing
from experiments.bench.conditions import conditions
from junlearn import language
from junlearn.descent import gradient_descent
from junlearn.model import Model
from junlearn.nn.adapters import lora
from junlearn.nn.text import transformer
from junlearn.objective import weighted
from junlearn.transform import Request
from junlearn.view import View, full

_WIDTHS = flags.DEFINE_list(
  "widths", ["64", "256"], "Widths of the decoders; 2048 is for a GPU."
)
_RANK = flags.DEFINE_integer("rank", 8, "Of the adapters.", lower_bound=1)
_LAYERS = flags.DEFINE_integer("layers", 3, "Blocks.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 8, "Sequences a step.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens a row.", lower_bound=2)
_DTYPE = flags.DEFINE_enum(
  "dtype", "float32", ["float32", "bfloat16"], "Of weights and computation."
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 15, "Times that each side is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps at a time.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "Write the table here, as Markdown.")

_HEADER = (
  *("width", "trained", "numbers", "gradient MB", "optimiser MB", "step MB"),
  *("of which scratch", "step ms", "time, of all", "min to max"),
)


class _Side(NamedTuple):
  """What is measured of one way to train."""

  numbers: int
  gradient: int
  optimizer: int
  memory: int
  scratch: int
  run: Callable[[], object]


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the table."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  widths = [int(width) if width.isdigit() else 0 for width in _WIDTHS.value]
  if not widths or any(width < 16 or width % 8 for width in widths):
    sys.exit(
      f"error: --widths is {','.join(_WIDTHS.value)}; each must be a multiple "
      "of 8, at least 16."
    )
  before = os.getloadavg()
  lines = []
  for line in (_line(*_HEADER), "|---" * len(_HEADER) + "|", *_rows(widths)):
    lines.append(line)
    print(line, flush=True)
  text = "\n".join([*lines, "", conditions(before)])
  if _OUT.value:
    Path(_OUT.value).write_text(f"# What adapters save\n\n{text}\n")


def _rows(widths: Sequence[int]) -> Iterator[str]:
  for width in widths:
    sides = _sides(width)
    times = timing.alternate(
      {name: side.run for name, side in sides.items()}, _REPEATS.value
    )
    for name, side in sides.items():
      ratios = [
        ours / all_
        for ours, all_ in zip(times[name], times["all"], strict=True)
      ]
      step = statistics.median(times[name]) / _STEPS.value
      yield _line(
        *(width, name, f"{side.numbers:,}"),
        *(_megabytes(size) for size in side[1:5]),
        f"{1e3 * step:.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
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
  adapted = lora.attach(key, params, "layers", rank=_RANK.value)
  return {
    "all": _side(model, full(), params, examples),
    f"adapters, r = {_RANK.value}": _side(
      lora.adapt_model(model, alpha=2.0 * _RANK.value),
      lora.view(),
      adapted,
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
  memory = step.memory_analysis()
  scratch = memory.temp_size_in_bytes
  needed = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + scratch
  )
  return _Side(
    sum(leaf.size for leaf in free),
    _bytes(free),
    _bytes(state.optimizer),
    needed,
    scratch,
    run,
  )


def _bytes(leaves: Any) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))


def _megabytes(size: int) -> str:
  return f"{size / 1e6:.2f}"


def _line(*cells: object) -> str:
  return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
  app.run(main)
