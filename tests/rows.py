"""The table of methods that the battery runs: one row a module."""

import functools

import numpy as np

from junlearn import language
from junlearn.adversarial import nearest_adversarial
from junlearn.methods import (
  amun,
  ascent,
  dpo,
  ferrari,
  finetune,
  fisher_forget,
  grad_difference,
  idk,
  influence,
  kl_min,
  lune,
  newton,
  npo,
  random_label,
  retrain,
  rmu,
  simnpo,
  task_vector,
  undial,
  weighted_ascent,
)
from junlearn.transform import Result, chain
from tests import problems


@functools.cache  # one compiled search for all tests
def _search(model):
  return nearest_adversarial(model, epsilon=0.1, num_steps=10, max_doublings=6)


def _negatives(key, params, request):
  """The other answers of the forget examples, as LUNE wants them."""
  del key
  extra = language.alternative(request.forget)
  return Result(params, request._replace(extra=extra), {})


# Methods that descend, for classifiers and for models of text. Each row:
# (problem, optimizer, num_steps=, batch_size=, loop=) -> Transform.
OF_CLASSES = {
  "amun": lambda problem, optimizer, **options: amun.transform(
    problem.model, optimizer, search=_search(problem.model), **options
  ),
  "ascent": lambda problem, optimizer, **options: ascent.transform(
    problem.model, optimizer, **options
  ),
  "ferrari": lambda problem, optimizer, **options: ferrari.transform(
    problem.model,
    optimizer,
    mask=np.ones(problem.examples["input"].shape[1:], np.float32),
    num_draws=2,
    reduction="mean",
    update_statistics=True,
    **options,
  ),
  "finetune": lambda problem, optimizer, **options: finetune.transform(
    problem.model, optimizer, **options
  ),
  "grad_difference": lambda problem, optimizer, **options: (
    grad_difference.transform(problem.model, optimizer, alpha=0.7, **options)
  ),
  "npo": lambda problem, optimizer, **options: npo.transform(
    problem.model,
    optimizer,
    beta=1.0,
    loss=problem.loss,
    retain=None,
    **options,
  ),
  "random_label": lambda problem, optimizer, **options: random_label.transform(
    problem.model, optimizer, num_classes=problem.num_classes, **options
  ),
  "retrain": lambda problem, optimizer, **options: retrain.transform(
    problem.model, optimizer, loss=problem.loss, **options
  ),
  "simnpo": lambda problem, optimizer, **options: simnpo.transform(
    problem.model,
    optimizer,
    beta=1.0,
    gamma=1.0,
    loss=problem.loss,
    retain=None,
    **options,
  ),
}

OF_TEXT = {
  "dpo": lambda problem, optimizer, **options: dpo.transform(
    problem.model, optimizer, beta=1.0, **options
  ),
  "idk": lambda problem, optimizer, **options: idk.transform(
    problem.model, optimizer, **options
  ),
  "kl_min": lambda problem, optimizer, **options: kl_min.transform(
    problem.model, optimizer, **options
  ),
  "lune": lambda problem, optimizer, **options: chain(
    negatives=_negatives,
    # Fresh params know nothing: the default threshold would stop at once.
    descend=lune.transform(
      problem.model, optimizer, threshold=0.02, every=2, **options
    ),
  ),
  "rmu": lambda problem, optimizer, **options: rmu.transform(
    problems.features, optimizer, coefficient=50.0, **options
  ),
  "task_vector": lambda problem, optimizer, **options: task_vector.transform(
    problem.model, optimizer, **options
  ),
  "undial": lambda problem, optimizer, **options: undial.transform(
    problem.model, optimizer, **options
  ),
  "weighted_ascent": lambda problem, optimizer, **options: (
    weighted_ascent.transform(problem.model, optimizer, **options)
  ),
}

# Methods of one step. Each row: (problem, strength) -> Transform; no strength
# leaves the params as they are.
CORRECTIONS = {
  "fisher_forget": lambda problem, strength=1.0: fisher_forget.transform(
    problem.model, alpha=1e-4 * strength
  ),
  "influence": lambda problem, strength=1.0: influence.transform(
    problem.model, alpha=strength, tolerance=1e-9, max_steps=4
  ),
  "newton": lambda problem, strength=1.0: newton.transform(
    problem.model,
    l2=2e-2,
    max_distance=0.0 if strength else 1e30,  # anything will do
    num_steps=2,
    curvature="gauss_newton",
    damping=3e-2,
    tolerance=1e-9,
    cg_steps=4,
  ),
}

DESCENTS = {**OF_CLASSES, **OF_TEXT}
METHODS = {**DESCENTS, **CORRECTIONS}
DRAWS = set(METHODS) - {"influence", "newton"}  # the others read no key

# Its params are stacked clients: its own test has the laws.
OF_CLIENTS = {"decentralized_newton"}

# Steps and learning rate at which a method should come closer to retraining
# and keep what it may keep.
BUDGET = {
  "amun": (60, 0.5),
  "ascent": (10, 0.1),
  "dpo": (20, 0.02),
  "ferrari": (5, 0.05),
  "finetune": (20, 0.05),
  "grad_difference": (20, 0.1),
  "idk": (20, 0.02),
  "kl_min": (20, 0.1),
  "lune": (10, 0.005),
  "npo": (20, 0.05),
  "random_label": (20, 0.05),
  "rmu": (20, 0.005),
  "simnpo": (20, 0.1),
  "task_vector": (20, 0.3),
  "undial": (10, 0.005),
  "weighted_ascent": (20, 0.3),
}


def problem_of(name, **options):
  """The small problem that a method is run on."""
  return problems.sentences() if name in OF_TEXT else problems.blobs(**options)
