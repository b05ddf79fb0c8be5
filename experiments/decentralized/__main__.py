"""Certified unlearning among clients that train without a server.

    python -m experiments.decentralized --workdir=DIR

With no flags: digits at 8 clients on a ring, a tenth of one client's records
to be forgotten by all, 3 seeds; DIR holds the report, the releases, and for
each certified one a certificate and a ledger that
`python -m experiments.verify_certificate DIR` checks.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from experiments.decentralized import flags_of_network
from experiments.decentralized import report as network_report
from experiments.decentralized.study import (
  METHODS,
  Network,
  Recipe,
  Study,
  records,
)
from experiments.release import answering
from experiments.release.register import Register
from experiments.run import program
from experiments.run.meter import Meter
from experiments.run.session import Outcome, Session
from experiments.run.workdir import Workdir
from junlearn.certify import convexity
from junlearn.transform import Request

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/decentralized", "Folder of the run; continued if begun."
)
_METHOD = flags.DEFINE_list(
  "method", list(METHODS), f"Methods to compare, of: {', '.join(METHODS)}."
)
_SEEDS = flags.DEFINE_integer(
  "seeds",
  3,
  "Seeds; each divides the records and draws what to forget.",
  lower_bound=1,
)

flags.adopt_module_key_flags(program)
flags.adopt_module_key_flags(flags_of_network)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  program.choose("method", _METHOD.value, METHODS)
  certified = [name for name in _METHOD.value if METHODS[name]]
  recipe = flags_of_network.recipe(len(release_names()))
  if certified and recipe.precision != "float64":
    raise ValueError(
      f"--precision={recipe.precision}: {', '.join(certified)} are certified, "
      "which needs float64."
    )
  jax.config.update("jax_enable_x64", recipe.precision == "float64")
  dataset = flags_of_network.dataset()
  networks = [
    flags_of_network.network(dataset, seed) for seed in range(_SEEDS.value)
  ]
  options = program.own_flags()
  with Workdir(_WORKDIR.value, options, private=bool(certified)) as workdir:
    with Session(
      workdir,
      _total(recipe),
      checkpoint_seconds=flags.FLAGS.checkpoint_seconds,
    ) as session:
      study = Study(dataset, recipe, session)
      register = None
      if certified:
        with program.naming("model"):
          params = jax.tree.map(lambda x: x[0], study.start(networks[0]))
          convexity.check_linear(
            study.model, params, dataset.train["input"][:2]
          )
        register = Register(workdir, recipe.terms, "decentralized")
        register.keep_requests(
          {
            f"seed{seed}": records(network.request.forget)["id"].tolist()
            for seed, network in enumerate(networks)
          }
        )
      for seed, network in enumerate(networks):
        _run_seed(study, workdir, register, seed, network)
    print(network_report.write(workdir, study, networks, release_names()))


def release_names() -> list[str]:
  """The releases that the flags ask for, in the order of the ledger."""
  return [
    f"seed{seed}/{method}/{index}"
    for seed in range(_SEEDS.value)
    for method in _METHOD.value
    if METHODS[method]
    for index in range(flags_of_network.requests())
  ]


def _run_seed(
  study: Study,
  workdir: Workdir,
  register: Register | None,
  seed: int,
  network: Network,
) -> None:
  """Both references and every method, for one seed's network."""
  recipe, request = study.recipe, network.request
  folder = f"seed{seed}"
  start = study.start(network)
  original = study.train(
    f"{folder}/original",
    network.before,
    start,
    Request(forget=None, retain=network.clients),
    num_rounds=recipe.rounds,
  )
  retrained = study.train(
    f"{folder}/retrain",
    network.after,
    start,
    request,
    num_rounds=recipe.rounds,
  )
  for name, outcome in (("original", original), ("retrain", retrained)):
    residual = outcome.notes["residual"]
    if residual > recipe.tolerance and any(map(METHODS.get, _METHOD.value)):
      raise ArithmeticError(
        f"{folder}/{name}: after {recipe.rounds} rounds a round still moves "
        f"the clients by {residual:.2g}, above --tolerance="
        f"{recipe.tolerance:g}; take more --rounds."
      )
  target = retrained.params
  add = _Rows(workdir, study, register, seed, network, retrained)
  add("retrain", retrained, exchanges=recipe.rounds)
  add("original", original, exchanges=0)
  if workdir.read_arrays(f"evidence/{folder}/influence.npz") is None:
    workdir.write_arrays(
      f"evidence/{folder}/influence.npz", {"norm": study.influence(network)}
    )
  for name in _METHOD.value:
    method = METHODS[name]
    if method is None:
      outcome = study.train(
        f"{folder}/{name}",
        network.after,
        original.params,
        request,
        num_rounds=recipe.finetune_rounds,
        reference=target,
      )
      add(name, outcome, exchanges=recipe.finetune_rounds)
      continue
    add(
      name, *_answer(study, network, register, seed, name, original, retrained)
    )


def _answer(
  study: Study,
  network: Network,
  register: Register,
  seed: int,
  method: str,
  original: Outcome,
  retrained: Outcome,
) -> tuple[Outcome, list[Outcome]]:
  """Answers the requests one after the other, each with a release of its own.

  Returns:
    The last release, and the corrections behind all of them.

  Raises:
    ArithmeticError: if the budget is spent or a bound is not met; the releases
      before stay.
  """
  form = METHODS[method]
  bound = study.bound(network, form)
  corrections, before = [], original.params
  for index, request in enumerate(network.requests):
    name = f"seed{seed}/{method}/{index}"
    released, corrected = answering.answer(
      study.session,
      register,
      study.recipe.terms,
      bound,
      name=name,
      request=request,
      seed=seed,
      before=before,
      correct=functools.partial(
        study.correct,
        network=network,
        request=request,
        params=before,
        form=form,
        reference=retrained.params,
      ),
      retrain=functools.partial(
        study.retrain, network=network, request=request, form=form
      ),
    )
    corrections.append(corrected)
    before = corrected.params
  return released, corrections


class _Rows:
  """Audits outcomes of one seed; adds the row that is not there yet."""

  def __init__(self, workdir, study, register, seed, network, retrained):
    self._workdir, self._study, self._seed = workdir, study, seed
    self._register = register
    self._network, self._retrained = network, retrained

  def __call__(
    self,
    method: str,
    outcome: Outcome,
    corrections: Sequence[Outcome] = (),
    *,
    exchanges: int = 0,
  ) -> None:
    """Adds the row of a method, and of what it was before any noise."""
    if self._workdir.row(method, self._seed) is not None:
      return
    meter = Meter()
    target = self._retrained.params
    evidence = self._study.audit(outcome.params, self._network, target)
    metrics = {"exchanges": exchanges, **evidence.metrics, **outcome.notes}
    arrays = {
      "distances": evidence.distances,
      "curve": np.asarray(outcome.curve),
    }
    if corrections:
      before = self._study.audit(corrections[-1].params, self._network, target)
      course = _joined([c.notes["course"] for c in corrections])
      metrics["distance_before_noise"] = before.metrics["distance"]
      metrics["exchanges"] = course[-1][0]
      arrays |= {"corrected": before.distances, "curve": np.asarray(course)}
    parts = [outcome, *corrections]
    self._workdir.write_arrays(
      f"evidence/seed{self._seed}/{method}.npz", arrays
    )
    seconds, compiled = meter.read().tolist()
    self._workdir.add_row(
      {
        "method": method,
        "seed": self._seed,
        "metrics": metrics,
        "seconds": {
          "unlearn": sum(part.seconds for part in parts),
          "retrain": self._retrained.seconds,
          "audit": seconds,
          "compile": compiled + sum(part.compile for part in parts),
        },
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "params_sha256": self._digest(outcome, released=bool(corrections)),
      }
    )

  def _digest(self, outcome, *, released):
    """Keyed, where params know the records and are not released."""
    if released or self._register is None:
      return outcome.params_sha256
    return self._register.fingerprint(outcome.params)


def _joined(courses: Sequence[list[list[float]]]) -> list[list[float]]:
  """One course after the other; each begins at 0 exchanges."""
  joined = courses[0]
  for course in courses[1:]:
    start = joined[-1][0]
    joined = joined + [[start + x, y] for x, y in course[1:]]
  return joined


def _total(recipe: Recipe) -> int:
  """Rounds that the whole run takes."""
  tuned = sum(METHODS[name] is None for name in _METHOD.value)
  rounds = 2 * recipe.rounds + tuned * recipe.finetune_rounds
  # Spread clients count one by one, as models do.
  models = flags_of_network.clients() if recipe.backend == "pmap" else 1
  return _SEEDS.value * rounds * models


if __name__ == "__main__":
  program.start(main)
