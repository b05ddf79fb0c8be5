"""Rounds of many clients on one machine: time and memory.

    python -m experiments.bench.clients [--clients=8,64,1000] [--out=FILE]

Every client has 20 examples of 64 features and its own perceptron; all are
batched on one device. Memory is what the compiled program needs for arguments,
results and scratch, as the compiler counts it. FILE gets the table, and beside
it FILE with the suffix .png how both grow.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from matplotlib.figure import Figure

from experiments.bench.conditions import conditions
from junlearn import descent, objective
from junlearn.clients import gossip, rounds, topology
from junlearn.loss import cross_entropy
from junlearn.model import Model, from_linen
from junlearn.nn import MLP
from junlearn.parallel.across import across
from junlearn.transform import Request

_CLIENTS = flags.DEFINE_list(
  "clients", ["8", "64", "256", "1000"], "Numbers of clients, 3 or more."
)
_HIDDEN = flags.DEFINE_list(
  "hidden", ["8", "128", "1024"], "Hidden units, which set the parameters."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 3, "Rounds in one timed program.", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 3, "Times that each program is timed.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Write the table here, as Markdown.")

_EXAMPLES, _FEATURES, _CLASSES = 20, 64, 10


class Row(NamedTuple):
  """What one kind of round came to.

  Attributes:
    round: its kind.
    clients: how many.
    parameters: of each.
    seconds: a round.
    mebibytes: of the compiled program.
    compile: seconds.
  """

  round: str
  clients: int
  parameters: int
  seconds: float
  mebibytes: float
  compile: float

  def __str__(self) -> str:
    return (
      f"| {self.round} | {self.clients} | {self.parameters} "
      f"| {self.seconds:.4f} | {self.mebibytes:.1f} | {self.compile:.1f} |"
    )


_HEADER = "| round | clients | parameters each | s a round | MiB | compile s |"


def main(arguments: Sequence[str]) -> None:
  """Measures, prints and, if asked, writes the table."""
  if len(arguments) > 1:
    sys.exit(f"error: unexpected argument {arguments[1]!r}; see --help.")
  before = os.getloadavg()
  header = [_HEADER, "|---|---|---|---|---|---|"]
  rows: list[Row] = []
  print("\n".join(header), flush=True)
  for hidden in _positive(_HIDDEN, least=1):
    for count in _positive(_CLIENTS, least=3):
      for row in _measure(count, from_linen(MLP(_CLASSES, hidden=(hidden,)))):
        rows.append(row)
        print(row, flush=True)
  text = "\n".join([*header, *map(str, rows), "", conditions(before)])
  print(text.splitlines()[-1])
  if _OUT.value:
    path = Path(_OUT.value)
    path.write_text(f"# Many clients on one machine\n\n{text}\n")
    _plot(rows, path.with_suffix(".png"))


def _plot(rows: Sequence[Row], path: Path) -> None:
  """Time and memory against clients, a line for each number of parameters."""
  figure = Figure(figsize=(8, 3.4), layout="constrained")
  shown = ("gradient descent, ring", "FedAvg, 5 mini-batches")
  for axes, field, label in zip(
    figure.subplots(1, 2),
    ("seconds", "mebibytes"),
    ("Seconds a round", "MiB"),
    strict=True,
  ):
    for kind, style in zip(shown, ("-", "--"), strict=True):
      for number, size in enumerate(sorted({row.parameters for row in rows})):
        line = [r for r in rows if (r.round, r.parameters) == (kind, size)]
        axes.plot(
          [row.clients for row in line],
          [getattr(row, field) for row in line],
          style,
          color=f"C{number}",
          marker="o",
          markersize=3,
          label=f"{kind}, {size:,} parameters",
        )
    axes.set(xscale="log", yscale="log", xlabel="Clients", ylabel=label)
    axes.grid(color="#e4e4e4")
  axes.legend(fontsize=6)
  figure.savefig(path, dpi=120)


def _positive(flag: flags.FlagHolder, *, least: int) -> list[int]:
  values = [int(v) if v.isdecimal() else 0 for v in flag.value]
  if not values or min(values) < least:
    sys.exit(
      f"error: --{flag.name} is {','.join(flag.value)}; it must be numbers of "
      f"at least {least}."
    )
  return values


def _bodies(model: Model, count: int) -> dict[str, Callable[..., Any]]:
  """Rounds of one client, by name."""
  loss = cross_entropy(model)
  risk = rounds.risk(loss, l2=1e-3)
  mixing = topology.metropolis_hastings(topology.ring(count))
  local = descent.descend(
    objective.weighted(loss, retain=1.0),
    optax.sgd(0.1, momentum=0.9),
    num_steps=5,
    batch_size=10,
  )
  averaging = rounds.federated_averaging(local, fraction=0.1)
  return {
    "gradient descent, ring": rounds.gradient_descent(
      risk, gossip.ring(mixing), step_size=0.1
    ),
    "gradient descent, any graph": rounds.gradient_descent(
      risk, gossip.dense(mixing), step_size=0.1
    ),
    "5 local steps, ring": rounds.adapt_then_combine(
      risk, gossip.ring(mixing), step_size=0.1, num_steps=5
    ),
    "FedAvg, 5 mini-batches": lambda params, examples, key: averaging(
      params, Request(None, examples), key
    ),
  }


def _measure(count: int, model: Model) -> Iterator[Row]:
  """One row for each kind of round."""
  rng = np.random.default_rng(0)
  examples = {
    "input": jnp.asarray(
      rng.normal(size=(count, _EXAMPLES, _FEATURES)), jnp.float32
    ),
    "label": jnp.asarray(rng.integers(0, _CLASSES, (count, _EXAMPLES))),
    "weight": jnp.ones((count, _EXAMPLES), jnp.float32),
  }
  key = jax.random.key(0)
  init = jax.vmap(model.init, in_axes=(0, None))
  params = jax.jit(init)(jax.random.split(key, count), examples["input"][0])
  own = sum(leaf.size for leaf in jax.tree.leaves(params)) // count
  for name, body in _bodies(model, count).items():
    many = rounds.iterate(body, num_rounds=_ROUNDS.value)
    mapped = across(many, in_axes=(0, 0, None), collective=True)
    start = time.perf_counter()
    program = jax.jit(mapped).lower(params, examples, key).compile()
    compiled = time.perf_counter() - start
    times = []
    for _ in range(_REPEATS.value + 1):
      start = time.perf_counter()
      jax.block_until_ready(program(params, examples, key))
      times.append((time.perf_counter() - start) / _ROUNDS.value)
    seconds = statistics.median(times[1:])  # the first call warms up
    memory = program.memory_analysis()
    size = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
    )
    yield Row(name, count, own, seconds, size / 2**20, compiled)


if __name__ == "__main__":
  app.run(main)
