"""Deletes records of a table: python -m experiments.tabular --workdir=DIR."""

from absl import flags

from experiments.run import options, program, runner
from experiments.tabular.methods import METHODS
from experiments.tabular.recipe import Recipe
from experiments.tabular.study import Study

_RUN = options.run("runs/tabular", METHODS, list(METHODS))
_RECIPE = options.define(Recipe)
flags.adopt_module_key_flags(program)


def main(arguments) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  print(runner.run(Study(_RECIPE.value), _RUN.value))


if __name__ == "__main__":
  program.start(main)
