"""Learning rates for the methods on language models, chosen by an oracle.

    python -m experiments.language.rates --workdir=DIR

For every method and view, the rate whose mean average gap to retraining is the
least, over both requests of the main job with no flags and over seeds of their
own. DIR/rates.md holds the table; `experiments.language.methods` what came out.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from experiments.language import corpora
from experiments.language.methods import METHODS, Variant
from experiments.language.metrics import METRICS
from experiments.language.recipe import Recipe
from experiments.language.study import Study
from experiments.language.tasks import Task
from experiments.run import options, program, tuning
from experiments.run.session import Session
from experiments.run.study import Case
from experiments.run.tables import row
from experiments.run.workdir import Workdir
from junlearn.report.metric import show
from junlearn.report.summary import summarize

_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
_FIRST_SEED = 1000

_RUN = options.run("runs/language_rates", METHODS, list(METHODS), seeds=2)

flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Tunes the methods that the flags name."""
  program.no_arguments(arguments)
  folder, methods, seeds = _RUN.value
  variants = [
    Variant(method, view)
    for method in methods
    for view in METHODS[method].rates
  ]
  study = Study(corpora.fictitious(60), Recipe())
  with Workdir(folder, program.own_flags()) as workdir:
    with Session(workdir) as study.session:
      cases = list(_cases(study, range(_FIRST_SEED, _FIRST_SEED + seeds)))
      gaps = tuning.scores(
        functools.partial(_gap, study),
        list(itertools.product(variants, _RATES)),
        cases,
      )
    workdir.write("rates.md", _table(variants, gaps))
    print(workdir / "rates.md")


def _cases(study: Study, seeds: Iterable[int]) -> Iterable[Case[Task]]:
  """Every request of every seed, and what its models are compared with."""
  for seed in seeds:
    original = study.train(None, seed)
    for task in study.tasks(seed):
      retrained = study.train(task, seed)
      target = study.evidence(retrained.params, task, seed=seed)
      yield Case(task, seed, original, retrained, target)


def _gap(study: Study, tried: tuple[Variant, float], case: Case[Task]) -> float:
  """The average gap of a method at a learning rate."""
  variant, rate = tried
  method, view = variant
  outcome = study.apply(
    f"{case.task.name}/{method}_{view}-{rate:g}",
    case.seed,
    variant,
    case.original.params,
    case.task,
    learning_rate=rate,
  )
  found = study.evidence(
    outcome.params, case.task, seed=case.seed, target=case.target
  )
  rows = [
    {"method": name, "seed": 0, "metrics": each.metrics}
    for name, each in (("method", found), ("retrain", case.target))
  ]
  return summarize(rows, METRICS).average["method"].mean


def _table(
  variants: Sequence[Variant], gaps: Mapping[tuple[Variant, float], float]
) -> str:
  """Mean gaps over requests and seeds, the least of each row set off."""
  lines = [
    row(["method, view", *(f"{rate:g}" for rate in _RATES)]),
    f"|---|{'---:|' * len(_RATES)}",
  ]
  for variant in variants:
    means = [gaps[variant, rate] for rate in _RATES]
    least = min(means)
    cells = [f"**{show(m)}**" if m == least else show(m) for m in means]
    lines.append(row([", ".join(variant), *cells]))
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  program.start(main)
