"""How the clients train, and what they run on; a field is a flag."""

from typing import Annotated, NamedTuple

import numpy as np

from experiments.run.options import Flag
from junlearn.clients.training import Training

MODELS = {"linear": (), "mlp": (32,)}  # widths of the hidden layers


class Recipe(NamedTuple):
  """How the clients train, and what they run on."""

  model: Annotated[
    str,
    Flag(
      "Model of every client; only the linear one can be certified.",
      choices=MODELS,
    ),
  ] = "linear"
  weighting: Annotated[
    str,
    Flag(
      "What counts alike in the mean risk: every client (uniform) or every "
      "record (sample).",
      choices=("uniform", "sample"),
    ),
  ] = "uniform"
  l2: Annotated[
    float, Flag("Penalty on all parameters of a client.", above=0.0)
  ] = 0.01
  step_size: Annotated[
    float,
    Flag(
      "Step size of training; 0 takes the largest that converges.", least=0.0
    ),
  ] = 0.0
  local_steps: Annotated[
    int, Flag("Steps of a client between two communication rounds.", least=1)
  ] = 1
  rounds: Annotated[
    int, Flag("Communication rounds of training and retraining.", least=1)
  ] = 4000
  finetune_rounds: Annotated[
    int, Flag("Communication rounds of the method finetune.", least=1)
  ] = 40
  tolerance: Annotated[
    float,
    Flag(
      "How far a round may still move a trained network, at most.", above=0.0
    ),
  ] = 1e-8
  precision: Annotated[
    str,
    Flag(
      "Precision of all numbers; certificates need float64.",
      choices=("float32", "float64"),
    ),
  ] = "float64"
  backend: Annotated[
    str,
    Flag(
      "Where the clients are: on one device (vmap) or spread over all (pmap).",
      choices=("vmap", "pmap"),
    ),
  ] = "vmap"

  def training(self, mixing: np.ndarray, step_size: float) -> Training:
    """The training on a graph, with a step size that may have been chosen."""
    return Training(
      mixing=mixing,
      step_size=step_size,
      l2=self.l2,
      local_steps=self.local_steps,
      weighting=self.weighting,
    )
