"""Rounds of many clients on one machine: time and memory.

    python -m experiments.bench.clients [--clients=8,64,1000] [--out=FILE]

Every client has 20 examples of 64 features and its own perceptron; all are
batched on one device. Memory is what the compiled program needs for arguments,
results and scratch, as the compiler counts it. FILE gets the table, and beside
it FILE with the suffix .png how both grow.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from matplotlib.figure import Figure

from experiments.bench import page, timing
from experiments.run import tables
from junlearn import descent, objective
from junlearn.clients import gossip, rounds, topology
from junlearn.loss import cross_entropy
from junlearn.model import Model, from_linen
from junlearn.nn import MLP
from junlearn.parallel.across import across
from junlearn.transform import Request

_CLIENTS = flags.DEFINE_list(
  "clients", ["8", "64", "256", "1000"], "Numbers of clients, 3 or more each."
)
_HIDDEN = flags.DEFINE_list(
  "hidden",
  ["8", "128", "1024"],
  "Numbers of hidden units, which set the number of parameters.",
)
_ROUNDS = page.integer("rounds", 3, "Rounds in one timed program.")
_REPEATS = page.repeats(3)

_EXAMPLES, _FEATURES, _CLASSES = 20, 64, 10


class _Row(NamedTuple):
  """A kind of round, and what it needs; `compile` is in seconds."""

  round: str
  clients: int
  parameters: int
  seconds: float
  mebibytes: float
  compile: float


def _measure() -> Iterator[str]:
  """The table, and its figure beside the page."""
  hidden = page.numbers(_HIDDEN, least=1)
  counts = page.numbers(_CLIENTS, least=3)
  columns = ("round", "clients", "parameters each", "s a round", "MiB")
  yield from tables.header([*columns, "compile s"])
  found = []
  for units in hidden:
    model = from_linen(MLP(_CLASSES, hidden=(units,)))
    for count in counts:
      for row in _rows(count, model):
        found.append(row)
        *names, seconds, size, taken = row
        cells = (f"{seconds:.4f}", f"{size:.1f}", f"{taken:.1f}")
        yield tables.row([*names, *cells])
  if page.OUT.value:
    _plot(found, Path(page.OUT.value).with_suffix(".png"))


def _plot(rows: Sequence[_Row], path: Path) -> None:
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


def _rows(count: int, model: Model) -> Iterator[_Row]:
  """One row for each kind of round."""
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(count, _EXAMPLES, _FEATURES))
  examples = {
    "input": jnp.asarray(inputs, jnp.float32),
    "label": jnp.asarray(rng.integers(0, _CLASSES, (count, _EXAMPLES))),
    "weight": jnp.ones((count, _EXAMPLES), jnp.float32),
  }
  key = jax.random.key(0)
  init = jax.vmap(model.init, in_axes=(0, None))
  params = jax.jit(init)(jax.random.split(key, count), examples["input"][0])
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params)) // count
  for name, body in _bodies(model, count).items():
    many = rounds.iterate(body, num_rounds=_ROUNDS.value)
    mapped = across(many, in_axes=(0, 0, None), collective=True)
    program = timing.compiled(mapped, params, examples, key)
    (times,) = timing.alternate({name: program.run}, _REPEATS.value).values()
    yield _Row(
      *(name, count, parameters),
      statistics.median(times) / _ROUNDS.value,
      program.memory / 2**20,
      program.seconds,
    )


if __name__ == "__main__":
  page.start("Many clients on one machine", _measure)
