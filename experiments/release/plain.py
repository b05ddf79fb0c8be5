"""A release as plain arrays and numbers, for a check without the library.

`experiments.verify_certificate.independent_check` reads it. It knows softmax
regression alone: a model is the kernel and bias of one layer. A single model is
a network of one client.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import jax
import numpy as np

from experiments.release import requests
from experiments.release.register import Answer
from experiments.release.terms import Terms


class Training(TypedDict):
  """How N clients trained.

  Attributes:
    mixing: `[N, N]`; [[1]] for a single model.
    step_size: 1 for a single model.
    l2: strength of the penalty.
    local_steps: between two communication rounds; 1 for a single model.
    weighting: "uniform" or "sample".
    form: "stacked" or "consensus"; "stacked" for a single model.
    tolerance: `|X - T(X)|` at which retraining ends.
  """

  mixing: np.ndarray
  step_size: float
  l2: float
  local_steps: int
  weighting: str
  form: str
  tolerance: float


# `kernel` [N, features, classes] and `bias` [N, classes].
Layer = dict[str, np.ndarray]


class PlainRelease(Training):
  """One release.

  Attributes:
    inputs: `[N, n, features]` of the retained records.
    labels: `[N, n]` of them.
    weight: `[N, n]`, 0 for padding.
    ids: of the records, lists `forget` and `retain`.
    original: the model that was trained on all records.
    retrained: the model without any of the records to be forgotten.
    corrected: the model that noise was added to.
    released: the model with noise.
    max_distance: that was promised before the noise.
    budget: `epsilon`, `delta` and `planned` releases.
  """

  inputs: np.ndarray
  labels: np.ndarray
  weight: np.ndarray
  ids: dict[str, np.ndarray]
  original: Layer
  retrained: Layer
  corrected: Layer
  released: Layer
  max_distance: float
  budget: dict[str, float]


def describe(
  answer: Answer, places: Mapping[str, Any], training: Training, terms: Terms
) -> PlainRelease:
  """The release of an answer.

  Args:
    answer: what was made.
    places: params of the `original` model and of `retrain`.
    training: how they came about.
    terms: of the release.
  """
  retain = answer.request.retain
  single = np.ndim(retain["id"]) == 1

  def array(leaf):
    return np.asarray(leaf)[None] if single else np.asarray(leaf)

  def layer(params):
    (found,) = params["params"].values()
    return jax.tree.map(array, dict(found))

  return PlainRelease(
    **training,
    inputs=array(retain["input"]),
    labels=array(retain["label"]),
    weight=array(retain.get("weight", np.ones(np.shape(retain["id"])))),
    ids={
      part: np.asarray(requests.present_ids(getattr(answer.request, part)))
      for part in ("forget", "retain")
    },
    original=layer(places["original"]),
    retrained=layer(places["retrain"]),
    corrected=layer(answer.corrected),
    released=layer(answer.released),
    max_distance=terms.max_distance,
    budget={
      "epsilon": terms.epsilon,
      "delta": terms.delta,
      "planned": terms.planned_releases,
    },
  )
