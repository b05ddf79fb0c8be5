"""Deletes training records from an image classifier, and measures how well.

    python -m experiments.classification --workdir=DIR

With no flags: the digits, 10 % of the training records forgotten, every method,
3 seeds; DIR holds the report (see README.md for the rest).

    python -m experiments.classification --certify --workdir=DIR

The same from a linear classifier, by Newton's method and with certificates,
which `python -m experiments.verify_certificate DIR` checks. Its inputs are the
pixels or, with --features=FOLDER, what the net of an earlier run on other data
makes of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.classification import certified as image_certified
from experiments.classification import certified_report
from experiments.classification import features as inputs_of
from experiments.classification import report as image_report
from experiments.classification import study as image_study
from experiments.classification.study import (
  CORRECTIONS,
  DESCENTS,
  METHODS,
  MODELS,
  Evidence,
  Recipe,
  Study,
)
from experiments.release import terms
from experiments.release.terms import Terms
from experiments.run import program
from experiments.run.meter import Meter
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn import tree
from junlearn.data import Dataset, load, select
from junlearn.parallel import processes
from junlearn.transform import Request

_DEFAULT = Recipe()

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/classification", "Folder of the run; continued if begun."
)
_DATASET = flags.DEFINE_string(
  "dataset",
  "digits",
  "digits, mnist, fashion_mnist, cifar10, or a TFDS name prepared in data_dir.",
)
_METHOD = flags.DEFINE_list(
  "method",
  ["finetune", "ascent", "random_label", "grad_difference", "amun"],
  f"Methods to compare, of: {', '.join(METHODS)}.",
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "Seeds; each draws its own records, weights and batches.",
  lower_bound=1,
)  # fmt: skip
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", None, "Use the first so many training examples.", lower_bound=2
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", None, "Use the first so many test examples.", lower_bound=2
)
_FRACTION = flags.DEFINE_float(
  "forget_fraction", None, "Forget a random fraction (default 0.1)."
)
_CLASS = flags.DEFINE_integer("forget_class", None, "Forget a whole class.")
_IDS = flags.DEFINE_list("forget_ids", None, "Forget the records of these ids.")
_USE_RETAIN = flags.DEFINE_boolean(
  "use_retain", True, "Whether the methods may read the retained records."
)
_MODEL = flags.DEFINE_enum(
  "model", _DEFAULT.model, list(MODELS), "Net to train."
)
_EPOCHS = flags.DEFINE_integer(
  "epochs", _DEFAULT.epochs, "Epochs of training.", lower_bound=1
)
_UNLEARN_EPOCHS = flags.DEFINE_integer(
  "unlearn_epochs",
  _DEFAULT.unlearn_epochs,
  "Budget of each method, in passes over the retained records.",
  lower_bound=0,
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", _DEFAULT.batch_size, "Examples a step.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
  "learning_rate", _DEFAULT.learning_rate, "Of training.", lower_bound=0.0
)
_LEARNING_RATES = flags.DEFINE_list(
  "unlearn_learning_rates",
  [],
  "Learning rates of methods, as amun=0.01,ascent=0.001.",
)
_REFERENCES = flags.DEFINE_integer(
  "references",
  _DEFAULT.references,
  "Reference models of the attack, even.",
  lower_bound=2,
)

_CERTIFY = flags.DEFINE_boolean(
  "certify", False, "Delete from a linear classifier, with certificates."
)
_FEATURES = flags.DEFINE_string(
  "features",
  None,
  "Of --certify: folder of a run on other data, whose first net makes the "
  "inputs (default: pixels).",
)
_L2 = flags.DEFINE_float("l2", 0.01, "Of --certify: penalty on all params.")
_REQUESTS = flags.DEFINE_integer(
  "requests",
  1,
  "Of --certify: successive requests that what is to be forgotten is divided "
  "into; each is answered by a release of its own.",
  lower_bound=1,
)

flags.mark_flags_as_mutual_exclusive([_FRACTION, _CLASS, _IDS])
flags.adopt_module_key_flags(program)
flags.adopt_module_key_flags(terms)

# What only one of the two kinds of run reads.
_WITHOUT_CERTIFY = (
  _USE_RETAIN,
  _MODEL,
  _EPOCHS,
  _UNLEARN_EPOCHS,
  _BATCH_SIZE,
  _LEARNING_RATE,
  _LEARNING_RATES,
  _REFERENCES,
)
_WITH_CERTIFY = (_FEATURES, _L2, _REQUESTS)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  options = _options()
  if _CERTIFY.value:
    _certify(options)
    return
  program.choose("method", _METHOD.value, METHODS)
  rates = {name: method.learning_rate for name, method in DESCENTS.items()}
  rates |= program.numbers(_LEARNING_RATES.name, DESCENTS)
  if _REFERENCES.value % 2:
    raise ValueError(f"--references={_REFERENCES.value}; it must be even.")
  with program.naming(_REFERENCES.name):
    processes.own(_REFERENCES.value)
  if not _USE_RETAIN.value:
    lame = [
      name
      for name in _METHOD.value
      if name in CORRECTIONS or DESCENTS[name].needs_retain
    ]
    if lame:
      raise ValueError(
        f"--nouse_retain: {', '.join(lame)} cannot work without the retained "
        "records; leave them out of --method."
      )
  dataset = _dataset()
  requests = [_request(dataset.train, seed) for seed in range(_SEEDS.value)]
  recipe = Recipe(
    model=_MODEL.value,
    epochs=_EPOCHS.value,
    unlearn_epochs=_UNLEARN_EPOCHS.value,
    learning_rate=_LEARNING_RATE.value,
    batch_size=_BATCH_SIZE.value,
    references=_REFERENCES.value,
  )
  with Workdir(_WORKDIR.value, options) as workdir:
    with Session(
      workdir,
      _total(recipe, dataset, requests),
      checkpoint_seconds=flags.FLAGS.checkpoint_seconds,
    ) as session:
      study = Study(dataset, recipe, session)
      for seed, request in enumerate(requests):
        _run_seed(study, workdir, seed, request, rates)
    print(image_report.write(workdir, study, requests))


def release_names() -> list[str]:
  """The releases that --certify makes, in the order of the ledger."""
  return image_certified.release_names(_SEEDS.value, _REQUESTS.value)


def promised() -> Terms:
  """What they promise."""
  return terms.from_flags(len(release_names()))


def problem() -> image_certified.Problem:
  """What --certify is asked for, in double precision.

  Raises:
    ValueError: if a flag does not fit.
  """
  if not 0 < _L2.value < math.inf:
    raise ValueError(f"--l2={_L2.value}; it must be finite and above 0.")
  dataset = _dataset()
  if _FEATURES.value is None:
    inputs, features = inputs_of.of_pixels(dataset)
  else:
    with program.naming(_FEATURES.name):
      inputs, features = inputs_of.of_run(dataset, _FEATURES.value)
  forgotten = [
    _request(dataset.train, seed).forget["id"] for seed in range(_SEEDS.value)
  ]
  with program.naming(_REQUESTS.name):
    requests = image_certified.divide(inputs, forgotten, _REQUESTS.value)
  return image_certified.problem(
    inputs, requests, features=features, l2=_L2.value, terms=promised()
  )


def _certify(options: dict[str, Any]) -> None:
  """Runs the certified experiment."""
  jax.config.update("jax_enable_x64", True)
  asked = problem()
  with Workdir(_WORKDIR.value, options, private=True) as workdir:
    with Session(workdir, 0) as session:
      image_certified.run(workdir, session, asked)
    print(certified_report.write(workdir, asked, release_names()[0]))


def _options() -> dict[str, Any]:
  """The flags that this kind of run reads, by name.

  Raises:
    ValueError: if one that it does not read was given.
  """
  options = program.own_flags()
  of_releases = flags.FLAGS.get_key_flags_for_module(terms)
  if _CERTIFY.value:
    unread, how = _WITHOUT_CERTIFY, "without"
    if flags.FLAGS[_METHOD.name].present and _METHOD.value != [
      image_certified.METHOD
    ]:
      raise ValueError(
        f"--{_METHOD.name}={','.join(_METHOD.value)}; with --certify it must "
        f"be {image_certified.METHOD}."
      )
    options[_METHOD.name] = [image_certified.METHOD]
  else:
    unread, how = (*_WITH_CERTIFY, *of_releases), "with"
    options.pop(_CERTIFY.name, None)  # runs from before it existed go on
  for flag in unread:
    if flags.FLAGS[flag.name].present:
      given = flags.FLAGS[flag.name].serialize()
      raise ValueError(f"{given}: it is only read {how} --certify.")
    options.pop(flag.name, None)
  return options


def _run_seed(
  study: Study,
  workdir: Workdir,
  seed: int,
  request: Request,
  rates: dict[str, float],
) -> None:
  """Both references and every method, for one seed's request."""
  everything = Request(forget=None, retain=study.dataset.train)
  original = study.train("original", seed, everything)
  retrained = study.train("retrain", seed, request)
  audit = _Audits(workdir, study, seed, request, retrained.seconds)
  target = audit("retrain", retrained)
  audit("original", original, target)
  readable = request if _USE_RETAIN.value else request._replace(retain=None)
  budget = image_study.unlearning_steps(study.recipe, tree.size(request.retain))
  for name in _METHOD.value:
    if name in CORRECTIONS:
      transform, steps = study.corrector(name), 0
    else:
      transform = study.unlearner(name, rates[name], budget)
      steps = budget
    outcome = study.unlearn(
      name,
      seed,
      transform,
      original.params,
      readable,
      steps=steps,
      track=request,
    )
    audit(name, outcome, target)


class _Audits:
  """Audits outcomes of one seed; adds the row that is not there yet."""

  def __init__(self, workdir, study, seed, request, retrain_seconds):
    self._workdir, self._study, self._seed = workdir, study, seed
    self._request, self._retrain_seconds = request, retrain_seconds

  def __call__(self, method, outcome, target=None) -> Evidence:
    kept = f"evidence/seed{self._seed}/{method}.npz"
    row = self._workdir.row(method, self._seed)
    arrays = self._workdir.read_arrays(kept)
    if row is not None and arrays is not None:
      return Evidence(row["metrics"], arrays)
    self._study.reference_signals()  # a phase of its own, measured there
    meter = Meter()
    evidence = self._study.audit(
      outcome.params, self._request, seed=self._seed, retrained=target
    )
    self._workdir.write_arrays(
      kept, {**evidence.arrays, "curve": np.asarray(outcome.curve)}
    )
    if row is not None:
      return evidence
    self._workdir.add_row(
      outcome.row(
        method,
        self._seed,
        evidence.metrics,
        retrain=self._retrain_seconds,
        audit=meter,
      )
    )
    return evidence


def _dataset() -> Dataset:
  with program.naming(_DATASET.name):
    return load(
      _DATASET.value,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=_NUM_TRAIN.value,
      num_test=_NUM_TEST.value,
    )


def _request(train: dict[str, Any], seed: int) -> Request:
  """The request that the flags describe, drawn with the seed."""
  if _CLASS.value is not None:
    with program.naming(_CLASS.name):
      return select.by_class(train, _CLASS.value)
  if _IDS.value is not None:
    if not all(text.isdecimal() for text in _IDS.value):
      raise ValueError(
        f"--{_IDS.name}={','.join(_IDS.value)}; it must be whole numbers."
      )
    with program.naming(_IDS.name):
      return select.by_id(train, [int(text) for text in _IDS.value])
  fraction = 0.1 if _FRACTION.value is None else _FRACTION.value
  with program.naming(_FRACTION.name):
    return select.by_fraction(train, fraction, seed=seed)


def _total(recipe: Recipe, dataset, requests) -> int:
  """Steps of one model that the whole run takes."""
  train, test = tree.size(dataset.train), tree.size(dataset.test)
  steps = image_study.training_steps
  descents = sum(name in DESCENTS for name in _METHOD.value)
  total = recipe.references * steps(recipe, (train + test) // 2)
  for request in requests:
    retained = tree.size(request.retain)
    total += steps(recipe, train) + steps(recipe, retained)
    total += descents * image_study.unlearning_steps(recipe, retained)
  return total


if __name__ == "__main__":
  program.start(main)
