"""Forgets a feature at one of several clients, and measures how well.

    python -m experiments.feature --workdir=DIR

With no flags: digits at 5 clients, one of which taught the model a backdoor;
Ferrari against fine-tuning and retraining, 3 seeds. DIR holds the report.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments.feature import report as feature_report
from experiments.feature import tasks as feature_tasks
from experiments.feature.study import METHODS, SCENARIOS, Study
from experiments.run import program
from experiments.run.meter import Meter
from experiments.run.session import Outcome, Session
from experiments.run.workdir import Workdir
from junlearn.data import load

_DEFAULT = feature_tasks.Recipe()

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/feature", "Folder of the run; continued if begun."
)
_SCENARIO = flags.DEFINE_enum(
  "scenario", "backdoor", list(SCENARIOS), "What is to be forgotten."
)
_DATASET = flags.DEFINE_string(
  "dataset",
  "digits",
  "Of the scenarios with images: digits, mnist, fashion_mnist, cifar10, or a "
  "TFDS name prepared in data_dir.",
)
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", None, "Use the first so many training examples.", lower_bound=20
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", None, "Use the first so many test examples.", lower_bound=20
)
_METHOD = flags.DEFINE_list(
  "method", list(METHODS), f"Methods to compare, of: {', '.join(METHODS)}."
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "Seeds; each divides the records anew.", lower_bound=1
)
_CLIENTS = flags.DEFINE_integer(
  "clients", _DEFAULT.clients, "Clients; the first one asks.", lower_bound=2
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", _DEFAULT.rounds, "Of training and retraining.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "unlearn_steps",
  _DEFAULT.unlearn_steps,
  "The most that a method takes.",
  lower_bound=1,
)
_DRAWS = flags.DEFINE_integer(
  "num_draws",
  _DEFAULT.num_draws,
  "Perturbations of an example and step.",
  lower_bound=1,
)
_TRIGGER = flags.DEFINE_integer(
  "trigger", _DEFAULT.trigger, "Rows and columns of the backdoor's trigger."
)
_STOP_GRADIENT = flags.DEFINE_enum(
  "stop_gradient",
  "none",
  ["none", "perturbed", "clean"],
  "Branch without gradient; the released code has perturbed.",
)
_RATE = flags.DEFINE_float(
  "unlearn_learning_rate", None, "Of Ferrari.", lower_bound=0.0
)

flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  program.choose("method", _METHOD.value, METHODS)
  recipe = _DEFAULT._replace(
    clients=_CLIENTS.value,
    rounds=_ROUNDS.value,
    unlearn_steps=_STEPS.value,
    num_draws=_DRAWS.value,
    trigger=_TRIGGER.value,
  )
  dataset = None
  if _SCENARIO.value != "sensitive":
    with program.naming(_DATASET.name):
      dataset = load(
        _DATASET.value,
        data_dir=flags.FLAGS.data_dir,
        manual_dir=flags.FLAGS.manual_dir,
        num_train=_NUM_TRAIN.value,
        num_test=_NUM_TEST.value,
      )
  make = SCENARIOS[_SCENARIO.value].make
  with program.naming(
    _TRIGGER.name if _SCENARIO.value == "backdoor" else _CLIENTS.name
  ):
    tasks = [make(dataset, recipe, seed) for seed in range(_SEEDS.value)]
  with Workdir(_WORKDIR.value, program.own_flags()) as workdir:
    with Session(
      workdir,
      _total(recipe),
      points=60,
      checkpoint_seconds=flags.FLAGS.checkpoint_seconds,
    ) as session:
      study = Study(_SCENARIO.value, dataset, recipe, session)
      for seed, task in enumerate(tasks):
        _run_seed(study, workdir, seed, task)
    print(feature_report.write(workdir, study, tasks))


def _run_seed(
  study: Study, workdir: Workdir, seed: int, task: feature_tasks.Task
) -> None:
  """Both references and every method, for one seed."""
  original = study.train("original", seed, task)
  retrained = study.train("retrain", seed, task)

  def add(method: str, outcome: Outcome) -> None:
    if workdir.row(method, seed) is not None:
      return
    meter = Meter()
    metrics = study.audit(outcome.params, task, blind=method == "retrain")
    workdir.write_arrays(
      f"evidence/seed{seed}/{method}.npz", {"curve": np.asarray(outcome.curve)}
    )
    workdir.add_row(
      outcome.row(method, seed, metrics, retrain=retrained.seconds, audit=meter)
    )

  add("retrain", retrained)
  add("original", original)
  rates = dict(study.scenario.rates)
  if _RATE.value is not None:
    rates["ferrari"] = _RATE.value
  for name in _METHOD.value:
    if name == "ferrari":
      outcome = study.ferrari(
        name,
        seed,
        task,
        original.params,
        rates[name],
        stop_gradient=_STOP_GRADIENT.value,
      )
    else:
      outcome = study.finetune(name, seed, task, original.params, rates[name])
    add(name, outcome)


def _total(recipe: feature_tasks.Recipe) -> int:
  """Steps that the bar counts: rounds, and steps of Ferrari."""
  each = {
    "ferrari": recipe.unlearn_steps,
    "finetune": max(recipe.unlearn_steps // recipe.local_steps, 1),
  }
  unlearning = sum(each[name] for name in _METHOD.value)
  return _SEEDS.value * (2 * recipe.rounds + unlearning)


if __name__ == "__main__":
  program.start(main)
