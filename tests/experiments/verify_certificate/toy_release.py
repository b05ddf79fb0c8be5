"""A certified experiment that is small and real, for tests of the verifier.

Softmax regression on 60 records, two releases of 4,010 numbers each.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from experiments.release import register, terms
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
  comparator=TOLERANCE / L2,
)


def names():
  """The releases, in the order of the ledger."""
  return ["seed0/toy/0", "seed0/toy/1"]


def promised():
  """What the flags promise."""
  return terms.from_flags(len(names()))


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
    entered = Register(workdir, terms(), EXPERIMENT)
    everything = Request(None, examples())
    before = keep("original", correct(key, start(), everything).params)
    keep("retrain", correct(key, start(), request(1)).params)
    for index, name in enumerate(names()):
      entered.fits(name, BOUND)
      corrected = correct(key, before, request(index)).params
      release = certified(
        lambda key, params, request: Result(params, request, None),
        BOUND,
        epsilon=terms().each,
        delta=terms().delta,
        max_distance=terms().max_distance,
      )
      entered.enter(
        Answer(
          name=name,
          bound=BOUND,
          request=request(index),
          seed=0,
          before=before,
          corrected=keep(name, corrected),
          released=release(key, corrected, request(index)).params,
          fallback=False,
        )
      )
      before = corrected


class Reader:
  """What a run kept."""

  def __init__(self, folder):
    self.folder = folder

  def answer(self, name):
    """A release, and where its noise must not point to."""
    index = names().index(name)
    places = {part: kept(self.folder, part) for part in ("original", "retrain")}
    before = kept(self.folder, names()[0]) if index else places["original"]
    path = self.folder / "releases" / name / "params.safetensors"
    answer = Answer(
      name=name,
      bound=BOUND,
      request=request(index),
      seed=0,
      before=before,
      corrected=kept(self.folder, name),
      released=register.from_safetensors(path, jax.device_get(start())),
      fallback=False,
    )
    return answer, {"before": before, **places}

  def case(self, name, answer):
    """The release as `independent_check` reads it: of one client."""
    retain = request(names().index(name)).retain
    weights = {
      part: getattr(answer.request, part)["weight"] > 0
      for part in ("forget", "retain")
    }
    places = {
      "original": kept(self.folder, "original"),
      "retrained": kept(self.folder, "retrain"),
      "corrected": answer.corrected,
      "released": answer.released,
    }
    return {
      "inputs": retain["input"][None],
      "labels": retain["label"][None],
      "weight": retain["weight"][None],
      "ids": {part: examples()["id"][here] for part, here in weights.items()},
      "mixing": np.ones((1, 1)),
      "step_size": 1.0,
      "l2": L2,
      "local_steps": 1,
      "weighting": "uniform",
      "form": "stacked",
      "tolerance": TOLERANCE,
      **{
        place: {k: v[None] for k, v in params["params"]["Dense_0"].items()}
        for place, params in places.items()
      },
    }
