"""A certified experiment that is small and real, for tests of the verifier.

Softmax regression on 60 records, two releases of 4,010 numbers each.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from experiments.release import names, plain, register, terms
from experiments.release.register import Answer, Register
from experiments.run.workdir import Workdir
from junlearn import nn
from junlearn.certify import certified
from junlearn.methods import newton
from junlearn.model import from_linen
from junlearn.transform import Request, Result

EXPERIMENT = "toy"
RECORDS, FEATURES, CLASSES = 60, 400, 10
L2, TOLERANCE = 0.1, 1e-9
FLAGS = {
  "epsilon": 1.0,
  "delta": 1e-5,
  "planned_releases": 2,
  "max_distance": 1e-3,
  "fallback": "none",
  "signing_key": None,
}
MODEL = from_linen(nn.MLP(CLASSES, hidden=()))
BOUND = newton.bound(
  MODEL,
  l2=L2,
  features="Drawn at random, with nothing learned from any record.",
  retrain_error=TOLERANCE / L2,
)


def releases():
  """The releases, in the order of the ledger."""
  return names.of_run(1, ["toy"], 2)


def promised():
  """What the flags promise."""
  return terms.promised(len(releases()))


@functools.cache
def examples():
  """All records, with inputs of norm 1."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(RECORDS, FEATURES))
  return {
    "input": x / np.linalg.norm(x, axis=1, keepdims=True),
    "label": rng.integers(0, CLASSES, RECORDS),
    "id": np.arange(RECORDS),
    "weight": np.ones(RECORDS, np.float32),
  }


def request(index):
  """That of a release: two records each, those before it included."""
  forget = (np.arange(RECORDS) < 2 * (index + 1)).astype(np.float32)
  return Request(
    examples() | {"weight": forget}, examples() | {"weight": 1 - forget}
  )


def start():
  """Fresh params."""
  zeros = {
    "kernel": jnp.zeros((FEATURES, CLASSES)),
    "bias": jnp.zeros(CLASSES),
  }
  return {"params": {"Dense_0": zeros}}


def kept(folder, name):
  """Params without noise."""
  path = folder / "checkpoints" / f"{name}.safetensors"
  return register.from_safetensors(path, jax.device_get(start()))


def make(folder):
  """A run of the experiment, as the real ones make theirs."""
  folder.mkdir(parents=True)
  config = {"experiment": EXPERIMENT, "command": "toy", "flags": FLAGS}
  (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
  key = jax.random.key(0)
  correct = newton.transform(MODEL, l2=L2, max_distance=TOLERANCE / L2)

  def keep(name, params):
    content = register.to_safetensors(params)
    workdir.write_bytes(f"checkpoints/{name}.safetensors", content)
    return params

  with Workdir(folder, FLAGS, private=True) as workdir:
    terms = promised()
    entered = Register(workdir, terms, EXPERIMENT)
    everything = Request(None, examples())
    before = keep("original", correct(key, start(), everything).params)
    keep("retrain", correct(key, start(), request(1)).params)
    for name in releases():
      entered.fits(name)
      asked = request(name.index)
      corrected = correct(key, before, asked).params
      release = certified(
        lambda key, params, request: Result(params, request, None),
        BOUND,
        epsilon=terms.each,
        delta=terms.delta,
        max_distance=terms.max_distance,
      )
      entered.enter(
        Answer(
          name=name,
          bound=BOUND,
          request=asked,
          before=before,
          corrected=keep(name, corrected),
          released=release(key, corrected, asked).params,
          fallback=False,
        )
      )
      before = corrected


def reader(folder):
  """What a run kept."""
  return Reader(folder)


class Reader:
  """What a run kept."""

  def __init__(self, folder):
    self.folder = folder

  def answer(self, name):
    """A release, and where its noise must not point to."""
    places = {part: kept(self.folder, part) for part in ("original", "retrain")}
    before = places["original"]
    if name.index:
      before = kept(self.folder, releases()[0])
    path = self.folder / f"releases/{name}/params.safetensors"
    answer = Answer(
      name=name,
      bound=BOUND,
      request=request(name.index),
      before=before,
      corrected=kept(self.folder, name),
      released=register.from_safetensors(path, jax.device_get(start())),
      fallback=False,
    )
    return answer, {"before": before, **places}

  def plain(self, answer, places):
    """The release as `independent_check` reads it: of one client."""
    training = plain.Training(
      mixing=np.ones((1, 1)),
      step_size=1.0,
      l2=L2,
      local_steps=1,
      weighting="uniform",
      form="stacked",
      tolerance=TOLERANCE,
    )
    return plain.describe(answer, places, training, promised())
