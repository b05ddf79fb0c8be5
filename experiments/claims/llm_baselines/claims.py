"""Claims 1 to 6 of the baselines of language models, on a small TOFU.

What GA, GradDiff, NPO and their like are said to do (TOFU arXiv 2401.06121,
NPO 2404.05868, OpenUnlearning 2506.12618, Zhang et al. 2410.16454), with a
decoder of 3 blocks trained from scratch (`bench`). Numbers are medians
over seeds. Learning rates come from one grid for all methods, chosen on a seed
of its own by memorization and utility, never by retraining or an attack; claim
2 compares methods untuned, as the published tables do. The model utility is of
retained people alone: there are no real authors or world facts here.
"""

from collections.abc import Iterator

from absl import flags

from experiments.claims.llm_baselines import (
  bench,
  comparison,
  limit,
  rounding,
  sanity,
)
from experiments.language.methods import METHODS
from experiments.run import program
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir

_AUTHORS = flags.DEFINE_integer(
  "llm_authors",
  100,
  "llm_baselines: people that the models know.",
  lower_bound=10,
)
_TRAINING = flags.DEFINE_integer(
  "llm_training_steps", 1200, "llm_baselines: steps of training.", lower_bound=1
)
_UNLEARNING = flags.DEFINE_integer(
  "llm_unlearn_steps", 60, "llm_baselines: steps of each method.", lower_bound=1
)
_METHODS = flags.DEFINE_list(
  "llm_methods", list(METHODS), "llm_baselines: methods to tune and compare."
)


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """The claims and the tables behind them, in three parts."""
  program.choose(_METHODS.name, _METHODS.value, METHODS)
  # Those that claims name take part whatever the flag says.
  methods = tuple(dict.fromkeys([*comparison.UNTUNED, *_METHODS.value]))
  study = bench.study(_AUTHORS.value, _TRAINING.value, _UNLEARNING.value)
  yield _claims(sanity.claims()), []
  with Session(workdir, folder="llm_baselines", points=1) as study.session:
    models = bench.Bench(study)
    cases = [models.case(seed) for seed in range(seeds)]
    rates = models.tune(methods)
    found = comparison.compare(models, cases, rates)
    limits, lines = limit.claims(models, cases)
    measured = [
      *comparison.gold(found),
      *comparison.over_unlearning(found),
      *limits,
      *comparison.relearning(found),
    ]
    yield _claims(measured), [*comparison.tables(found, rates), *lines]
    measured, lines = rounding.claims(models, cases)
  yield _claims(measured), lines


def _claims(parts) -> list[Claim]:
  return [
    Claim("llm_baselines", number, "authors", *demanded, float(measured))
    for number, *demanded, measured in parts
  ]
