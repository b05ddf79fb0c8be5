"""What a run of `experiments.classification --certify` kept, to be verified."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.classification import __main__ as classification
from experiments.classification import certified as image_certified
from experiments.release import reader
from experiments.release.register import Answer
from experiments.release.terms import Terms

EXPERIMENT = "classification"


def names() -> list[str]:
  """The releases that the flags ask for, in the order of the ledger."""
  return classification.release_names()


def terms() -> Terms:
  """What they promise."""
  return classification.promised()


class Reader:
  """What a run kept of its releases.

  Args:
    folder: of the run, whose flags are set.

  Raises:
    ValueError: if a flag does not fit.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    jax.config.update("jax_enable_x64", True)
    self._problem = classification.problem()

  def answer(self, name: str) -> tuple[Answer, dict[str, Any]]:
    """A release, and the params by name that its noise must not point to.

    Raises:
      ValueError: if something is missing or damaged.
    """
    seed, _, _ = reader.parts(name)
    return reader.answer(
      self._folder,
      name,
      self._problem.bound,
      self._problem.requests[seed],
      self._problem.start,
      self._problem.terms,
    )

  def case(self, name: str, answer: Answer) -> dict[str, Any]:
    """The release as plain arrays and numbers, for `independent_check`.

    A single classifier is a network of one client, whose rounds are steps of
    length 1 down the gradient.
    """
    seed, _, _ = reader.parts(name)
    start, retain = self._problem.start, answer.request.retain
    places = {
      "original": self._phase(f"seed{seed}/original", start),
      "retrained": self._phase(f"seed{seed}/retrain", start),
      "corrected": answer.corrected,
      "released": answer.released,
    }
    return {
      "inputs": np.asarray(retain["input"])[None],
      "labels": np.asarray(retain["label"])[None],
      "weight": np.ones((1, len(retain["label"]))),
      "ids": {
        part: np.asarray(getattr(answer.request, part)["id"])
        for part in ("forget", "retain")
      },
      "mixing": np.ones((1, 1)),
      "step_size": 1.0,
      "l2": self._problem.l2,
      "local_steps": 1,
      "weighting": "uniform",
      "form": "stacked",
      "tolerance": image_certified.COMPARATOR * self._problem.l2,
      **{
        place: jax.tree.map(
          lambda x: np.asarray(x)[None], params["params"]["Dense_0"]
        )
        for place, params in places.items()
      },
    }

  def _phase(self, name: str, like: Any) -> Any:
    return reader.phase(self._folder, name, like)
