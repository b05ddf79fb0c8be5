"""What `certified` must refuse: requests, params, models and graphs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.certificates.programs import (
  CLIENTS,
  HEADS,
  INPUTS,
  Program,
)
from junlearn.loss import softmax_cross_entropy
from junlearn.model import Model, from_function


def perceptron(last: Model) -> Model:
  """Not linear: the model of what a hidden layer makes of the inputs."""

  def apply(params, x):
    return last.apply(params["last"], jnp.tanh(x @ params["first"]))[0]

  return from_function(apply)


def not_convex(outputs: jax.Array, examples: Any) -> jax.Array:
  """The probability of the other classes."""
  return 1 - jnp.exp(-softmax_cross_entropy(outputs, examples))


def _tilted(mixing):
  """Rows still sum to 1, columns do not."""
  tilted = mixing.copy()
  tilted[0, :2] += [0.01, -0.01]
  return tilted


MIXINGS = {
  "mixing not symmetric": _tilted,
  "mixing not normalized": lambda mixing: mixing * (1 + 1e-9),
  "mixing negative": lambda mixing: 2 * np.eye(CLIENTS) - mixing,
}


class Broken(NamedTuple):
  """Something that must be refused.

  Attributes:
    data: `(parts, params, program) -> params`; changes the parts in place.
    applies: whether the program knows it.
    late: whether it is found out only after the distance was measured, which
      may be too large anyway.
  """

  data: Callable[[Any, Any, Program], Any] = lambda parts, params, _: params
  applies: Callable[[Program], bool] = lambda program: True
  late: bool = False


def _spoil(part: str, name: str, value: Any) -> Callable[[Any, Any, Any], Any]:
  """Writes a value, or one that the program gives, at a part's first record."""

  def data(parts, params, program):
    examples = parts[part]
    where = tuple(np.argwhere(examples["weight"])[0])
    examples[name] = examples[name].copy()
    examples[name][where] = value(program) if callable(value) else value
    return params

  return data


def _fill(part: str, value: Callable[[Any], np.ndarray]):
  """Writes all weights of a part, given the parts."""

  def data(parts, params, program):
    parts[part]["weight"] = value(parts)
    return params

  return data


def _drop_ids(parts, params, program):
  del parts["retain"]["id"]
  return params


def _wrap(parts, params, program):
  rows = () if program.form == "single" else (CLIENTS,)
  first = jnp.broadcast_to(jnp.eye(INPUTS), (*rows, INPUTS, INPUTS))
  return {"first": first, "last": params}


def _is_classifier(program):
  return not HEADS[program.head].squared


def _is_network(program):
  return program.form != "single"


BROKEN = {
  "half a weight": Broken(_spoil("retain", "weight", 0.5)),
  "negative weight": Broken(_spoil("retain", "weight", -1)),
  "label too large": Broken(
    _spoil("retain", "label", lambda program: program.classes), _is_classifier
  ),
  "label below 0": Broken(_spoil("forget", "label", -1), _is_classifier),
  "forgotten and kept": Broken(
    _fill(
      "retain", lambda parts: sum(part["weight"] for part in parts.values())
    )
  ),
  "nothing kept": Broken(
    _fill("retain", lambda parts: 0 * parts["retain"]["weight"])
  ),
  "nothing to forget": Broken(
    _fill("forget", lambda parts: 0 * parts["forget"]["weight"])
  ),
  "no ids": Broken(_drop_ids),
  "NaN input": Broken(_spoil("retain", "input", np.nan), late=True),
  "infinite param": Broken(
    lambda parts, params, _: jax.tree.map(lambda x: x + np.inf, params),
    late=True,
  ),
  "single precision": Broken(
    lambda parts, params, _: jax.tree.map(
      lambda x: x.astype(jnp.float32), params
    )
  ),
  "rows that differ": Broken(
    lambda parts, params, _: jax.tree.map(
      lambda x: x.at[1].add(1e-9 + 1e-9 * x[1]), params
    ),
    lambda program: program.form == "consensus",
    late=True,
  ),
  "model not linear": Broken(_wrap),
  "loss not convex": Broken(applies=lambda p: p.local_steps == 1),
  "loss not stated convex": Broken(applies=lambda p: p.local_steps == 1),
  **dict.fromkeys(MIXINGS, Broken(applies=_is_network)),
  "constants too small": Broken(
    applies=lambda p: p.local_steps > 1 and p.form == "stacked"
  ),
}


def breakages(program: Program) -> list[str]:
  """The keys of `BROKEN` that the program knows."""
  return [name for name, each in BROKEN.items() if each.applies(program)]
