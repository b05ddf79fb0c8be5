"""Claims of Ferrari (arXiv 2405.17462): a feature forgotten by one client.

Digits and a table of patients that scikit-learn embeds, 5 clients, federated
averaging. Numbers are medians over seeds; the tables show the worst seed too.
Learning rates are chosen on seeds of their own, from one grid for all methods,
by the mean distance to retraining: an oracle.
"""

from collections.abc import Iterator

import numpy as np
from absl import flags

from experiments.claims.ferrari import ablation, comparison
from experiments.claims.ferrari.comparison import Found
from experiments.feature.recipe import Recipe
from experiments.feature.scenarios import SCENARIOS
from experiments.feature.study import Study
from experiments.run import runner
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.data import load


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """For each scenario, its claims and the table behind them."""
  recipe = Recipe()
  dataset = load("digits", data_dir=flags.FLAGS.data_dir)
  for name in SCENARIOS:
    study = Study(name, dataset, recipe)
    with Session(
      workdir,
      _total(study, seeds),
      folder=f"ferrari/{name}",
      points=recipe.unlearn_steps // ablation.EVERY,
    ) as study.session:
      found = comparison.compare(study, seeds)
      measured, lines = _CLAIMS[name](found), comparison.table(study, found)
      if name == "backdoor":
        more, table = ablation.run(study, found.cases)
        measured, lines = [*measured, *more], [*lines, *table]
    data = "diabetes" if name == "sensitive" else "digits"
    yield [Claim("ferrari", n, data, *rest) for n, *rest in measured], lines


def _backdoor(found: Found):
  """Claims 1 and 2: the backdoor goes, and sensitivity; accuracy stays."""
  return [
    ("1a", "attack success before", ">=", 0.95,
     found.median("original", "attack_success")),
    ("1b", "attack success after", "<=", ablation.ATTACK,
     found.median("ferrari", "attack_success")),
    ("1c", "clean accuracy lost (points)", "<=", 5,
     found.lost("test_accuracy")),
    ("2a", "sensitivity that is left", "<=", 0.5,
     found.left("ferrari", "sensitivity")),
    ("2b", "sensitivity left by fine-tuning", ">", 0.75,
     found.left("finetune", "sensitivity")),
  ]  # fmt: skip


def _sensitive(found: Found):
  """Claim 5: predictions no longer depend on the column, and on others do."""
  return [
    ("5a", "flip rate that is left", "<=", 0.1,
     found.left("ferrari", "flip_rate")),
    ("5b", "sensitivity that is left", "<=", 0.1,
     found.left("ferrari", "sensitivity")),
    ("5c", "accuracy lost (points)", "<=", 3, found.lost("test_accuracy")),
    ("5d", "sensitivity to other columns that is left", ">=", 0.5,
     found.left("ferrari", "other_sensitivity")),
  ]  # fmt: skip


def _bias(found: Found):
  """Claim 6: both kinds of images are classified alike, at little cost."""
  time = np.median(
    [
      outcome.seconds / case.retrained.seconds
      for outcome, case in zip(
        found.outcomes["ferrari"], found.cases, strict=True
      )
    ]
  )
  return [
    ("6a", "accuracy gap before (points)", ">=", 20,
     100 * found.median("original", "accuracy_gap")),
    ("6b", "accuracy gap after (points)", "<=", 5,
     100 * found.median("ferrari", "accuracy_gap")),
    ("6c", "time over that of retraining", "<=", 0.1, float(time)),
  ]  # fmt: skip


_CLAIMS = {"backdoor": _backdoor, "bias": _bias, "sensitive": _sensitive}


def _total(study: Study, seeds: int) -> int:
  """Steps that all phases of a scenario take."""
  variants = list(comparison.methods(study.name).values())
  ablations = ["ferrari"] * len(ablation.VARIANTS)
  compared = variants + (ablations if study.name == "backdoor" else [])
  tuned = variants * len(comparison.RATES)
  (task,) = study.tasks(0)  # all take as many
  return runner.total(
    study, tuned, [[task]] * len(comparison.TUNING_SEEDS)
  ) + runner.total(study, compared, [[task]] * seeds)
