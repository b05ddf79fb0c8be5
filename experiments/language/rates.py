"""Learning rates for the methods on language models, chosen by an oracle.

    python -m experiments.language.rates --workdir=DIR

For every method and view, the rate whose mean average gap to retraining is the
least, over both requests of the main job with no flags and over seeds of their
own. DIR/rates.md holds the table; `experiments.language.methods` what came out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from experiments.language import tasks as language_tasks
from experiments.language.audit import Evidence
from experiments.language.methods import METHODS, VIEWS
from experiments.language.report import METRICS
from experiments.language.study import Recipe, Study
from experiments.language.tasks import Task
from experiments.run import program
from experiments.run.session import Outcome, Session
from experiments.run.workdir import Workdir
from junlearn.loop import NonFiniteError
from junlearn.report.metric import show
from junlearn.report.summary import summarize

_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
_FIRST_SEED = 1000

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/language_rates", "Folder of the run; continued if begun."
)
_METHOD = flags.DEFINE_list("method", list(METHODS), "Methods to tune.")
_SEEDS = flags.DEFINE_integer("seeds", 2, "Seeds.", lower_bound=1)

flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Tunes the methods that the flags name."""
  program.no_arguments(arguments)
  program.choose(_METHOD.name, _METHOD.value, METHODS)
  recipe = Recipe()
  corpus = language_tasks.fictitious(60)
  seeds = range(_FIRST_SEED, _FIRST_SEED + _SEEDS.value)
  facts = {
    (seed, name): chosen
    for seed in seeds
    for name, chosen in (
      ("author", language_tasks.one_author(corpus, seed)),
      ("fraction", language_tasks.by_fraction(corpus, 0.1, seed)),
    )
  }
  capacity = max(language_tasks.num_known(corpus, f) for f in facts.values())
  trials = len(_METHOD.value) * len(VIEWS) * len(_RATES)
  steps = _SEEDS.value * (3 * recipe.steps + 2 * trials * recipe.unlearn_steps)
  with Workdir(_WORKDIR.value, program.own_flags()) as workdir:
    with Session(workdir, steps) as session:
      study = Study(corpus, recipe, session)
      found = [
        dict(_gaps(study, seed, task, study.train("original", seed)))
        for (seed, name), chosen in facts.items()
        for task in [
          language_tasks.make(corpus, name, chosen, seed, capacity=capacity)
        ]
      ]
    workdir.write("rates.md", _table(found))
    print(workdir / "rates.md")


def _gaps(
  study: Study, seed: int, task: Task, original: Outcome
) -> Iterator[tuple[tuple[str, str, float], float]]:
  """The average gap of every method, view and rate; inf where one diverged."""
  retrained = study.train(f"{task.name}/retrain", seed, task)
  target = study.audit(retrained.params, task, seed=seed)
  for method in _METHOD.value:
    for view in METHODS[method].rates:
      for rate in _RATES:
        try:
          outcome = study.unlearn(
            f"{task.name}/{method}_{view}-{rate:g}",
            seed,
            task,
            original.params,
            method=method,
            view=view,
            learning_rate=rate,
          )
          evidence = study.audit(
            outcome.params, task, seed=seed, retrained=target
          )
          yield (method, view, rate), _gap(evidence, target)
        except NonFiniteError:
          yield (method, view, rate), np.inf


def _gap(evidence: Evidence, target: Evidence) -> float:
  rows = [
    {"method": name, "seed": 0, "metrics": each.metrics}
    for name, each in (("method", evidence), ("retrain", target))
  ]
  return summarize(rows, METRICS).average["method"].mean


def _table(found: Sequence[dict[tuple[str, str, float], float]]) -> str:
  """Mean gaps over requests and seeds, the least of each row set off."""
  lines = [
    f"| method, view | {' | '.join(f'{rate:g}' for rate in _RATES)} |",
    f"|---|{'---:|' * len(_RATES)}",
  ]
  for method in _METHOD.value:
    for view in METHODS[method].rates:
      means = [
        np.mean([gaps[method, view, rate] for gaps in found]) for rate in _RATES
      ]
      cells = [
        f"**{show(mean)}**" if mean == min(means) else show(mean)
        for mean in means
      ]
      lines.append(f"| {method}, {view} | {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  program.start(main)
