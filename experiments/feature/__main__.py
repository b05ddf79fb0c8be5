"""Forgets a feature at one of several clients, and measures how well.

    python -m experiments.feature --workdir=DIR

With no flags: digits at 5 clients, one of which taught the model a backdoor;
Ferrari against fine-tuning and retraining, 3 seeds. DIR holds the report.
"""

from collections.abc import Sequence

from absl import flags

from experiments.feature.methods import METHODS
from experiments.feature.recipe import Recipe
from experiments.feature.scenarios import SCENARIOS
from experiments.feature.study import Study
from experiments.run import options, program, runner
from junlearn.data import load

_RUN = options.run("runs/feature", METHODS, list(METHODS))
_SCENARIO = flags.DEFINE_enum(
  "scenario", "backdoor", list(SCENARIOS), "What is to be forgotten."
)
_IMAGES = options.define(options.Images)
_RECIPE = options.define(Recipe)

flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  tabular = _SCENARIO.value == "sensitive"
  dataset = None if tabular else options.load(_IMAGES, load)
  study = Study(_SCENARIO.value, dataset, _RECIPE.value)
  print(runner.run(study, _RUN.value, points=60))


if __name__ == "__main__":
  program.start(main)
