"""Certified unlearning among clients that train without a server.

    python -m experiments.decentralized --workdir=DIR

With no flags: digits at 8 clients on a ring, a tenth of one client's records
to be forgotten by all, 3 seeds; DIR holds the report, the releases, and for
each certified one a certificate and a ledger that
`python -m experiments.verify_certificate DIR` checks.
"""

from collections.abc import Sequence

import jax
from absl import flags

from experiments.decentralized.methods import METHODS
from experiments.decentralized.recipe import Recipe
from experiments.decentralized.study import Study
from experiments.decentralized.tasks import Asked, Layout
from experiments.release import names, terms
from experiments.release.inputs import unit_norm
from experiments.release.names import Name
from experiments.release.terms import Terms
from experiments.run import options, program, runner
from junlearn.data import load

_RUN = options.run("runs/decentralized", METHODS, list(METHODS))
_IMAGES = options.define(options.Images)
_LAYOUT = options.define(Layout)
_ASKED = options.define(Asked)
_RECIPE = options.define(Recipe)

flags.mark_flags_as_mutual_exclusive(list(_ASKED.flags.values()))
flags.adopt_module_key_flags(program)
flags.adopt_module_key_flags(terms)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  asked = study()
  print(runner.run(asked, _RUN.value, private=bool(asked.releasing)))


def releases() -> list[Name]:
  """The releases that the flags ask for, in the order of the ledger."""
  run = _RUN.value
  return names.of_run(run.seeds, _certified(), terms.FLAGS.value.requests)


def promised() -> Terms:
  """What they promise."""
  return terms.promised(len(releases()))


def study() -> Study:
  """What the flags ask for, in their precision.

  Raises:
    ValueError: if a flag does not fit.
  """
  recipe, certified = _RECIPE.value, _certified()
  if certified and recipe.precision != "float64":
    raise ValueError(
      f"--precision={recipe.precision}: {', '.join(certified)} are certified, "
      "which needs float64."
    )
  jax.config.update("jax_enable_x64", recipe.precision == "float64")
  promise = promised()
  dataset = options.load(_IMAGES, load)
  dataset = dataset._replace(
    train=unit_norm(dataset.train), test=unit_norm(dataset.test)
  )
  layout, asked, compared = _LAYOUT.value, _ASKED.value, _RUN.value.method
  with program.naming("model"):
    return Study(
      dataset,
      recipe,
      layout=layout,
      asked=asked,
      terms=promise,
      compared=compared,
    )


def _certified() -> list[str]:
  return [name for name in _RUN.value.method if METHODS[name]]


if __name__ == "__main__":
  program.start(main)
