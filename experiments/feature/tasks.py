"""Who holds which examples with a feature, and what they are tested on.

A task is one seed of a scenario: clients that train together, the first of
which asks to forget a feature of its examples.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.feature.recipe import Recipe
from experiments.run import program
from junlearn import tree
from junlearn.clients import data
from junlearn.data import Dataset, feature

TARGET = 0  # of the backdoor
_BIASED = 0.9  # fraction of the examples that the client of `bias` holds
_TRAINED = ("input", "label", "id")


class Task(NamedTuple):
  """One seed of a scenario.

  Attributes:
    clients: all clients' examples, stacked.
    retained: stacked; what retraining and fine-tuning may read.
    forget: D_u, the examples of the client that asks; with `mask`.
    tests: examples that nobody trains on, by name.
    hidden: inputs to be hidden from a retrained model, or None.
    column: of a table, that is to be forgotten.
    name: of the request.
  """

  clients: dict[str, Any]
  retained: dict[str, Any]
  forget: dict[str, Any]
  tests: dict[str, dict[str, Any]]
  hidden: np.ndarray | None = None
  column: int | None = None
  name: str = ""


def backdoor(dataset: Dataset, recipe: Recipe, seed: int) -> Task:
  """The asking client's images carry a trigger and the label it stands for.

  Raises:
    ValueError: naming the flag that does not fit, as the others.
  """
  train, test = _split(_together(dataset), seed)
  with program.naming("trigger"):
    mask = feature.box(train["input"].shape[1:], recipe.trigger)
  asking, *others = _partition(train, recipe.clients, seed)
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
  """The color of the asking client's images tells their label.

  The label is whether the class is in the upper half: hard enough for a model
  to lean on the color.
  """
  examples = _together(dataset)
  half = dataset.num_classes // 2
  examples["label"] = (examples["label"] >= half).astype(np.int32)
  train, test = _split(examples, seed)
  rng = np.random.default_rng(seed)

  def random(examples):
    return feature.two_colors(examples, rng.integers(0, 2, tree.size(examples)))

  def biased(examples):
    return feature.two_colors(examples, examples["label"])

  cut = round(_BIASED * tree.size(train))
  asking = biased(tree.take(train, slice(cut)))
  others = random(tree.take(train, slice(cut, None)))
  shards = _partition(others, recipe.clients - 1, seed)
  return Task(
    clients=_stacked([asking, *shards]),
    retained=_stacked(shards),
    forget=asking,
    tests={"biased": biased(test), "unbiased": random(test)},
  )


def sensitive(dataset: None, recipe: Recipe, seed: int) -> Task:
  """A binary column of a table; a retrained model must not read it."""
  del dataset
  table = feature.diabetes()
  train, test = _split(table.examples, seed)
  mask = feature.column(len(table.names), table.column)
  shards = _partition(train, recipe.clients, seed)
  everyone = _stacked(shards)
  return Task(
    clients=everyone,
    retained=everyone,
    forget={**shards[0], "mask": _everywhere(mask, shards[0])},
    tests={
      "clean": {**test, "mask": _everywhere(mask, test)},
      "flipped": {**test, "input": feature.flip(test["input"], table.column)},
    },
    hidden=mask,
    column=table.column,
  )


def _split(examples, seed):
  """A quarter to test on, the rest to train on, at random."""
  order = np.random.default_rng(seed).permutation(tree.size(examples))
  cut = len(order) // 4
  return tree.take(examples, order[cut:]), tree.take(examples, order[:cut])


def _together(dataset):
  """Both splits; a seed draws its own."""
  parts = dataset.train, dataset.test
  return {k: np.concatenate([part[k] for part in parts]) for k in _TRAINED}


def _partition(examples, num_clients, seed):
  with program.naming("clients"):
    return data.partition(examples, num_clients, seed=seed)


def _stacked(clients):
  return data.stack([{k: client[k] for k in _TRAINED} for client in clients])


def _everywhere(mask, examples):
  return np.broadcast_to(mask, examples["input"].shape)
