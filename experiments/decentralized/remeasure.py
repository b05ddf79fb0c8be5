"""What a run of `experiments.decentralized` kept, to be verified."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.decentralized import __main__ as decentralized
from experiments.decentralized import flags_of_network
from experiments.decentralized.study import METHODS, Network, Study
from experiments.release import reader
from experiments.release.register import Answer
from experiments.release.terms import Terms
from junlearn.certify import Bound

EXPERIMENT = "decentralized"


def names() -> list[str]:
  """The releases that the flags ask for, in the order of the ledger."""
  return decentralized.release_names()


def terms() -> Terms:
  """What they promise."""
  return flags_of_network.recipe(len(names())).terms


class Reader:
  """What a run kept of its releases.

  Args:
    folder: of the run, whose flags are set.

  Raises:
    ValueError: if a flag does not fit.
  """

  def __init__(self, folder: Path):
    self._folder, self._networks, self._bounds = folder, {}, {}
    recipe = flags_of_network.recipe(len(names()))
    jax.config.update("jax_enable_x64", recipe.precision == "float64")
    self._study = Study(flags_of_network.dataset(), recipe, None)

  def answer(self, name: str) -> tuple[Answer, dict[str, Any]]:
    """A release, and the params by name that its noise must not point to.

    Raises:
      ValueError: if something is missing or damaged.
    """
    seed, method, _ = reader.parts(name)
    network = self._network(seed)
    return reader.answer(
      self._folder,
      name,
      self._bound(seed, method),
      network.requests,
      self._like(seed),
      self._study.recipe.terms,
    )

  def case(self, name: str, answer: Answer) -> dict[str, Any]:
    """The release as plain arrays and numbers, for `independent_check`."""
    seed, method, _ = reader.parts(name)
    network, recipe = self._network(seed), self._study.recipe
    retain = answer.request.retain
    training = network.after
    places = {
      "original": self._kept(f"seed{seed}/original", self._like(seed)),
      "retrained": self._kept(f"seed{seed}/retrain", self._like(seed)),
      "corrected": answer.corrected,
      "released": answer.released,
    }
    return {
      "inputs": np.asarray(retain["input"]),
      "labels": np.asarray(retain["label"]),
      "weight": np.asarray(retain["weight"]),
      "ids": {
        part: _present(getattr(answer.request, part))
        for part in ("forget", "retain")
      },
      "mixing": np.asarray(training.mixing),
      "step_size": training.step_size,
      "l2": training.l2,
      "local_steps": training.local_steps,
      "weighting": training.weighting,
      "form": METHODS[method],
      "tolerance": recipe.tolerance,
      **{
        place: jax.tree.map(np.asarray, params["params"]["Dense_0"])
        for place, params in places.items()
      },
    }

  def _network(self, seed: int) -> Network:
    if seed not in self._networks:
      self._networks[seed] = flags_of_network.network(self._study.dataset, seed)
    return self._networks[seed]

  def _bound(self, seed: int, method: str) -> Bound:
    """Compiled once for all releases that it holds of."""
    key = seed, method
    if key not in self._bounds:
      network = self._network(seed)
      self._bounds[key] = self._study.bound(network, METHODS[method])
    return self._bounds[key]

  def _like(self, seed: int) -> Any:
    return self._study.start(self._network(seed))

  def _kept(self, phase: str, like: Any) -> Any:
    return reader.phase(self._folder, phase, like)


def _present(examples: Any) -> np.ndarray:
  return np.asarray(examples["id"])[np.asarray(examples["weight"]) > 0]
