"""What a run of `experiments.decentralized` kept, measured again."""

import math
from pathlib import Path

import jax
import numpy as np

from experiments import network_flags
from experiments.network_study import METHODS, Study, records
from experiments.workdir import restore_flags
from junlearn import checkpoint, tree
from junlearn.certify import fingerprint, noise


def remeasure(folder: Path, name: str, index: int) -> dict[str, float | str]:
  """Fields of the certificate of one release, from data and checkpoints.

  Args:
    folder: of the run.
    name: of the network's releases, as `seed0/newton`.
    index: of the release.

  Returns:
    As `experiments.verify_certificate` asks for.

  Raises:
    ValueError: if something is missing or damaged.
  """
  restore_flags(folder)
  seed, method = name.removeprefix("seed").split("/")
  form = METHODS[method]
  recipe = network_flags.recipe()
  jax.config.update("jax_enable_x64", recipe.precision == "float64")
  dataset = network_flags.dataset()
  network = network_flags.network(dataset, int(seed))
  request = network.requests[index]
  study = Study(dataset, recipe, None)
  like = study.start(network)

  def kept(phase):
    return checkpoint.load(folder / "checkpoints" / phase, like)

  before = kept(
    f"{name}/{index - 1}-corrected" if index else f"seed{seed}/original"
  )
  corrected = kept(f"{name}/{index}-corrected")
  released = kept(f"{name}/{index}-released")
  salt = (folder / "private" / "salt").read_bytes()
  bound = study.bound(network, form.form)
  difference = jax.tree.map(lambda a, b: np.asarray(a - b), released, corrected)
  if form.noise is noise.shared:
    difference = tree.take(difference, slice(1))
  found = {
    "hashes.forget_ids": fingerprint.record_set(
      records(request.forget)["id"].tolist(), salt=salt
    ),
    "hashes.retain_ids": fingerprint.record_set(
      records(request.retain)["id"].tolist(), salt=salt
    ),
    "hashes.params_before": fingerprint.params(before, salt=salt),
    "hashes.params_after": tree.digest(released),
    "measured.result": float(bound(corrected, request)),
    "noise.square": float(
      sum(np.sum(leaf**2) for leaf in jax.tree.leaves(difference))
    ),
    "head.arguments.input_norm": math.sqrt(
      1 + float(np.max(np.sum(dataset.train["input"] ** 2, 1)))
    ),
  }
  if form.form == "stacked":
    retrained = kept(f"seed{seed}/retrain")
    found["comparator"] = float(bound(retrained, network.request))
  return found
