"""Reads what a certified run kept of its releases, as it wrote it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.release.answering import must_retrain
from experiments.release.register import Answer, from_safetensors
from experiments.release.terms import Terms
from junlearn.certify import Bound
from junlearn.storage import checkpoint
from junlearn.transform import Request


def parts(name: str) -> tuple[int, str, int]:
  """Seed, method and number of the request of a release."""
  seed, method, index = name.split("/")
  return int(seed.removeprefix("seed")), method, int(index)


def phase(folder: Path, name: str, like: Any) -> Any:
  """The params of a phase, in the structure of others.

  Raises:
    ValueError: if they are missing or damaged.
  """
  return checkpoint.load(folder / "checkpoints" / name, like)


def answer(
  folder: Path,
  name: str,
  bound: Bound,
  requests: Sequence[Request],
  like: Any,
  terms: Terms,
) -> tuple[Answer, dict[str, Any]]:
  """A release, and the params by name that its noise must not point to.

  Args:
    folder: of the run.
    name: of the release.
    bound: of its seed and method.
    requests: the same, one after the other.
    like: params, for their structure.
    terms: of the releases.

  Raises:
    ValueError: if something is missing or damaged.
  """
  seed, method, index = parts(name)

  def corrected(index):
    """The params without noise, and whether they were retrained."""
    name = f"seed{seed}/{method}/{index}"
    found = phase(folder, f"{name}-corrected", like)
    if must_retrain(bound, found, requests[index], terms):
      return phase(folder, f"{name}-retrained", like), True
    return found, False

  places = {
    place: phase(folder, f"seed{seed}/{place}", like)
    for place in ("original", "retrain")
  }
  if bound.norm == "joint" and index == len(requests) - 1:
    _check_yardstick(bound, places["retrain"], requests[index], terms)
  before = corrected(index - 1)[0] if index else places["original"]
  params, fallback = corrected(index)
  published = folder / "releases" / name / "params.safetensors"
  found = Answer(
    name=name,
    bound=bound,
    request=requests[index],
    seed=seed,
    before=before,
    corrected=params,
    released=from_safetensors(published, jax.device_get(like)),
    fallback=fallback,
  )
  return found, {"before": before, **places}


def _check_yardstick(bound, retrained, request, terms):
  """What the run compares with must be where retraining leads."""
  distance = float(bound.distance(retrained, request))
  if not distance <= terms.max_distance + bound.comparator:
    raise ValueError(
      f"checkpoints hold a retrained model that is {distance:.3g} from where "
      "retraining leads; it is another one."
    )
