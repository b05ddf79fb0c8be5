"""Who holds which examples with a feature, and what they are tested on.

One seed of a scenario is a `Task`: clients that train together, the first of
which asks to forget a feature of its examples.
"""

from typing import Any, NamedTuple

import numpy as np

from junlearn import tree
from junlearn.clients import data
from junlearn.data import Dataset, feature

TARGET = 0  # of the backdoor
_TRAINED = ("input", "label", "id")


class Recipe(NamedTuple):
  """How clients train, and what unlearning may cost.

  Attributes:
    clients: how many; the first one asks.
    rounds: of federated averaging.
    local_steps: of every client in a round.
    learning_rate: of the clients' SGD.
    momentum: of the same; the paper's.
    batch_size: examples a step, everywhere.
    unlearn_steps: the most that a method takes.
    num_draws: perturbations of an example and step.
    check_every: steps between two looks at the stopping rule.
    trigger: rows and columns of the trigger, in the upper left corner.
    biased: share of the examples that the client of `bias` holds.
  """

  clients: int = 5
  rounds: int = 100
  local_steps: int = 8
  learning_rate: float = 0.03
  momentum: float = 0.5
  batch_size: int = 32
  unlearn_steps: int = 600
  num_draws: int = 20
  check_every: int = 5
  trigger: int = 3
  biased: float = 0.9


class Task(NamedTuple):
  """One seed of a scenario.

  Attributes:
    clients: all clients' examples, stacked.
    retained: stacked; what retraining and fine-tuning may read.
    forget: D_u, the examples of the client that asks; with `mask`.
    tests: examples that nobody trains on, by name.
    hidden: inputs to be hidden from a retrained model, or None.
    column: of a table, that is to be forgotten.
  """

  clients: dict[str, Any]
  retained: dict[str, Any]
  forget: dict[str, Any]
  tests: dict[str, dict[str, Any]]
  hidden: np.ndarray | None = None
  column: int | None = None


def _split(examples, seed):
  """A quarter to test on, the rest to train on, at random."""
  order = np.random.default_rng(seed).permutation(tree.size(examples))
  cut = len(order) // 4
  return tree.take(examples, order[cut:]), tree.take(examples, order[:cut])


def _together(dataset):
  """Both splits; a seed draws its own."""
  parts = dataset.train, dataset.test
  return {k: np.concatenate([part[k] for part in parts]) for k in _TRAINED}


def _stacked(clients):
  return data.stack([{k: client[k] for k in _TRAINED} for client in clients])


def backdoor(dataset: Dataset, recipe: Recipe, seed: int) -> Task:
  """The asking client's images carry a trigger and the label it stands for."""
  train, test = _split(_together(dataset), seed)
  mask = feature.box(train["input"].shape[1:], recipe.trigger)
  asking, *others = data.partition(train, recipe.clients, seed=seed)
  stamped = feature.backdoor(asking, mask, target=TARGET)
  return Task(
    clients=_stacked([stamped, *others]),
    retained=_stacked(others),
    forget={**stamped, "mask": _everywhere(mask, stamped)},
    tests={
      "clean": {**test, "mask": _everywhere(mask, test)},
      "stamped": feature.backdoor(test, mask, target=TARGET),
    },
  )


def bias(dataset: Dataset, recipe: Recipe, seed: int) -> Task:
  """The colour of the asking client's images tells their label.

  The label is whether the class is in the upper half: hard enough for a model
  to lean on the colour.
  """
  examples = _together(dataset)
  half = dataset.num_classes // 2
  examples["label"] = (examples["label"] >= half).astype(np.int32)
  train, test = _split(examples, seed)
  rng = np.random.default_rng(seed)

  def random(examples):
    return feature.two_colours(
      examples, rng.integers(0, 2, tree.size(examples))
    )

  def biased(examples):
    return feature.two_colours(examples, examples["label"])

  cut = round(recipe.biased * tree.size(train))
  asking = biased(tree.take(train, slice(cut)))
  shares = data.partition(
    random(tree.take(train, slice(cut, None))), recipe.clients - 1, seed=seed
  )
  return Task(
    clients=_stacked([asking, *shares]),
    retained=_stacked(shares),
    forget=asking,
    tests={"biased": biased(test), "unbiased": random(test)},
  )


def sensitive(dataset: None, recipe: Recipe, seed: int) -> Task:
  """A binary column of a table; a retrained model must not read it."""
  del dataset
  table = feature.diabetes()
  train, test = _split(table.examples, seed)
  mask = feature.column(len(table.names), table.column)
  shares = data.partition(train, recipe.clients, seed=seed)
  everyone = _stacked(shares)
  return Task(
    clients=everyone,
    retained=everyone,
    forget={**shares[0], "mask": _everywhere(mask, shares[0])},
    tests={
      "clean": {**test, "mask": _everywhere(mask, test)},
      "flipped": {**test, "input": feature.flip(test["input"], table.column)},
    },
    hidden=mask,
    column=table.column,
  )


def _everywhere(mask, examples):
  return np.broadcast_to(mask, examples["input"].shape)
