"""Inputs of a certified classifier: pixels, or what a net makes of them.

A record has no part in the inputs of the others as pixels; as features it has
one if the net was trained on it. So the net is that of a run on other data.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen

from experiments.classification.recipe import MODELS
from experiments.release.inputs import PIXELS, unit_norm
from experiments.run.workdir import read_config
from junlearn import tree
from junlearn.audit import outputs
from junlearn.data import Dataset
from junlearn.model import from_function
from junlearn.parallel import processes
from junlearn.storage import checkpoint

_NET = "checkpoints/seed0/original"


def of_pixels(dataset: Dataset) -> tuple[Dataset, str]:
  """The data set with inputs of norm 1, and what they are."""
  return _map(unit_norm, dataset), PIXELS


def of_run(dataset: Dataset, folder: str | Path) -> tuple[Dataset, str]:
  """The same, of what the last layer of a run's net reads, in float64.

  Args:
    dataset: images as `data.load` gives them.
    folder: of a run of `experiments.classification` on another data set.

  Raises:
    ValueError: if it is none, was on the same data, or its net reads other
      images or is damaged.
  """
  folder = Path(folder)
  flags = _flags_of(folder)
  name, source = flags.get("model"), flags.get("dataset")
  if name not in MODELS or not source or flags.get("certify"):
    raise ValueError(
      f"{folder} is no run of experiments.classification that trained a net."
    )
  if _data_of(source) == _data_of(dataset.name):
    raise ValueError(
      f"the net in {folder} was trained on {source}, records of which may be "
      "forgotten; features must come from other data."
    )
  stored = checkpoint.shapes(folder / _NET)
  inputs = dataset.train["input"]
  module = MODELS[name](num_classes=_width(stored))
  abstract = jax.eval_shape(module.init, jax.random.key(0), inputs[:1])
  expected = {
    tree.path_name(path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(abstract)[0]
  }
  if stored != expected:
    raise ValueError(
      f"the net in {folder} reads images of another shape than those of "
      f"{dataset.name}, {inputs.shape[1:]}."
    )
  like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
  params = checkpoint.load(folder / _NET, like)
  wide = jax.tree.map(lambda x: x.astype(np.float64), params)
  features = from_function(last_inputs(module))

  def read(examples):
    images = np.asarray(examples["input"], np.float64)
    found = outputs.predict(features, wide, images)
    return unit_norm({**examples, "input": found})

  return _map(read, dataset), (
    f"The inputs are what the last layer of a {name} reads, scaled to norm 1 "
    f"by the record alone; the {name} was, as its folder says, trained on "
    f"{source} (SHA-256 of its params {tree.digest(params)}), which is said to "
    f"have no record of {dataset.name}."
  )


def last_inputs(module: linen.Module) -> Callable[[Any, Any], jax.Array]:
  """`(params, inputs) -> ` what the module's last `Dense` reads.

  The last one is that which is called last; in evaluation mode.
  """

  def apply(params, inputs):
    read = []

    def keep(call, arguments, options, context):
      is_dense = isinstance(context.module, linen.Dense)
      if is_dense and context.method_name == "__call__":
        read.append(arguments[0])
      return call(*arguments, **options)

    with linen.intercept_methods(keep):
      module.apply(params, inputs)
    return read[-1]

  return apply


def _map(function: Callable[[Any], Any], dataset: Dataset) -> Dataset:
  """The function of training and of test examples."""
  return dataset._replace(
    train=function(dataset.train), test=function(dataset.test)
  )


def _flags_of(folder: Path) -> dict[str, Any]:
  """The flags of a run, for all processes."""
  content = None
  if processes.is_first():
    content = json.dumps(read_config(folder)["flags"]).encode()
  return json.loads(processes.broadcast_bytes(content))


def _data_of(name: str) -> str:
  """A data set's name without TFDS's configuration and version."""
  return name.partition(":")[0].partition("/")[0]


def _width(stored: dict[str, tuple[int, ...]]) -> int:
  """Outputs of a net: the width of the `Dense` that was made last."""
  biases = {
    int(name.split("/")[1].removeprefix("Dense_")): shape[0]
    for name, shape in stored.items()
    if name.startswith("params/Dense_") and name.endswith("/bias")
  }
  return biases[max(biases)] if biases else 0
