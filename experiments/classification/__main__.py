"""Deletes training records from an image classifier, and measures how well.

    python -m experiments.classification --workdir=DIR

With no flags: the digits, 10 % of the training records forgotten, every method,
3 seeds; DIR holds the report (see docs/classification.md for the rest).

    python -m experiments.classification --certify --workdir=DIR

The same from a linear classifier, by Newton's method and with certificates,
which `python -m experiments.verify_certificate DIR` checks. Its inputs are the
pixels or, with --features=FOLDER, what the net of an earlier run on other data
makes of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments.classification import certified, features
from experiments.classification.methods import DESCENTS, METHODS
from experiments.classification.recipe import Recipe
from experiments.classification.study import Study
from experiments.classification.tasks import Asked
from experiments.release import names, terms
from experiments.release.names import Name
from experiments.release.terms import Terms
from experiments.run import options, program, runner
from junlearn.data import Dataset, load
from junlearn.parallel import processes

_RUN = options.run(
  "runs/classification",
  METHODS,
  ["finetune", "ascent", "random_label", "grad_difference", "amun"],
)
_IMAGES = options.define(options.Images)
_ASKED = options.define(Asked)
_RECIPE = options.define(Recipe)
_USE_RETAIN = flags.DEFINE_boolean(
  "use_retain", True, "Whether the methods may read the retained records."
)
_LEARNING_RATES = flags.DEFINE_list(
  "unlearn_learning_rates",
  [],
  "Learning rates of methods, as amun=0.01,ascent=0.001.",
)
_CERTIFY = flags.DEFINE_boolean(
  "certify", False, "Delete from a linear classifier, with certificates."
)
_CERTIFIED = options.define(certified.Recipe)

flags.mark_flags_as_mutual_exclusive(list(_ASKED.flags.values()))
flags.adopt_module_key_flags(program)
flags.adopt_module_key_flags(terms)

# What only one of the two kinds of run reads.
_WITHOUT_CERTIFY = (_USE_RETAIN, _LEARNING_RATES, *_RECIPE.flags.values())
_WITH_CERTIFY = (*_CERTIFIED.flags.values(), *terms.FLAGS.flags.values())


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  given = _options()
  if _CERTIFY.value:
    _certify(given)
    return
  asked, recipe = _RUN.value, _RECIPE.value
  if recipe.references % 2:
    raise ValueError(f"--references={recipe.references}; it must be even.")
  with program.naming("references"):
    processes.local_shard(recipe.references)
  lame = [name for name in asked.method if METHODS[name].needs_retain]
  if lame and not _USE_RETAIN.value:
    raise ValueError(
      f"--nouse_retain: {', '.join(lame)} cannot work without the retained "
      "records; leave them out of --method."
    )
  study = Study(
    _dataset(),
    recipe,
    asked=_ASKED.value,
    use_retain=_USE_RETAIN.value,
    rates=program.numbers(_LEARNING_RATES.name, DESCENTS),
  )
  print(runner.run(study, asked, options=given))


def releases() -> list[Name]:
  """The releases that --certify makes, in the order of the ledger."""
  seeds = _RUN.flags["seeds"].value
  return names.of_run(seeds, [certified.METHOD], terms.FLAGS.value.requests)


def promised() -> Terms:
  """What they promise."""
  return terms.promised(len(releases()))


def certified_study() -> certified.Study:
  """What --certify asks for, in double precision.

  Raises:
    ValueError: if a flag does not fit.
  """
  jax.config.update("jax_enable_x64", True)
  l2, folder = _CERTIFIED.value
  promise, dataset = promised(), _dataset()
  if folder is None:
    inputs, description = features.of_pixels(dataset)
  else:
    with program.naming("features"):
      inputs, description = features.of_run(dataset, folder)
  return certified.Study(
    inputs, description, asked=_ASKED.value, l2=l2, terms=promise
  )


def _certify(given: dict[str, Any]) -> None:
  """Runs the certified experiment."""
  workdir, seeds = (_RUN.flags[name].value for name in ("workdir", "seeds"))
  asked = options.Run(workdir, (certified.METHOD,), seeds)
  page = runner.run(certified_study(), asked, options=given, private=True)
  print(page)


def _options() -> dict[str, Any]:
  """The flags that this kind of run reads, by name.

  Raises:
    ValueError: if one that it does not read was given.
  """
  asked = program.own_flags()
  if _CERTIFY.value:
    unread, how = _WITHOUT_CERTIFY, "without"
    method = flags.FLAGS["method"]
    if method.present and method.value != [certified.METHOD]:
      raise ValueError(
        f"--method={','.join(method.value)}; with --certify it must be "
        f"{certified.METHOD}."
      )
    asked["method"] = [certified.METHOD]
  else:
    unread, how = _WITH_CERTIFY, "with"
  for flag in unread:
    if flags.FLAGS[flag.name].present:
      given = flags.FLAGS[flag.name].serialize()
      raise ValueError(f"{given}: it is only read {how} --certify.")
    asked.pop(flag.name, None)
  return asked


def _dataset() -> Dataset:
  return options.load(_IMAGES, load)


if __name__ == "__main__":
  program.start(main)
