"""Seeds x requests x methods: the one loop of all experiments.

Every model is audited once, and every audit is a row; what an earlier run left
is read back. The page is made of rows and evidence alone.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.run import findings, program
from experiments.run.meter import Meter
from experiments.run.options import Run
from experiments.run.session import Outcome, Session
from experiments.run.study import Case, Evidence, Study, T
from experiments.run.workdir import Workdir
from junlearn import report


def run(
  study: Study[T],
  asked: Run,
  *,
  options: Mapping[str, Any] | None = None,
  private: bool = False,
  **session: Any,
) -> Path:
  """Runs a study, or what is left of it, and writes its page.

  Args:
    study: of a modality.
    asked: folder, methods and number of seeds.
    options: flags by name; None for all that the program has.
    private: whether what the run releases is sent out, see `Workdir`.
    **session: of the `Session`.

  Returns:
    Where the page is.

  Raises:
    ValueError, OSError: as `Workdir`, or if a request does not fit the data;
      nothing is written then.
    ArithmeticError: if a training does not stay finite; what was done stays.
  """
  tasks = [study.tasks(seed) for seed in range(asked.seeds)]
  _check_names(tasks)
  options = dict(options or program.own_flags())
  seconds = flags.FLAGS.checkpoint_seconds
  with Workdir(asked.workdir, options, private=private) as workdir:
    steps = total(study, asked.method, tasks)
    with Session(
      workdir, steps, checkpoint_seconds=seconds, **session
    ) as study.session:
      study.begin(tasks)
      for seed, of_seed in enumerate(tasks):
        original = study.train(None, seed)
        for task in of_seed:
          with _phase_of_its_own(study, seed, task, "retrain"):
            retrained = study.train(task, seed)
          case = Case(task, seed, original, retrained)
          _compare(study, workdir, asked.method, case)
    return _write(study, workdir, tasks)


def total(
  study: Study[T], methods: Sequence[str], tasks: Sequence[Sequence[T]]
) -> int:
  """Steps of one model that a whole run takes."""
  first = tasks[0][0]
  each = sum(
    study.steps(name, task)
    for of_seed in tasks
    for task in of_seed
    for name in ("retrain", *methods)
  )
  originals = sum(study.steps("original", of_seed[0]) for of_seed in tasks)
  return study.steps("shared", first) + originals + each


def _compare(
  study: Study[T], workdir: Workdir, methods: Sequence[str], case: Case[T]
) -> None:
  """The rows of one task: both references and every method."""
  target = _audit(study, workdir, "retrain", case.retrained, case)
  case = case._replace(target=target)
  _audit(study, workdir, "original", case.original, case)
  for method in methods:
    with _phase_of_its_own(study, case.seed, case.task, method):
      outcome = study.unlearn(method, case)
    _audit(study, workdir, method, outcome, case)


def _audit(
  study: Study[T], workdir: Workdir, method: str, outcome: Outcome, case: Case
) -> Evidence:
  """What is measured of a model, now or by an earlier run; adds its row."""
  request = {"request": case.task.name} if case.task.name else {}
  place = findings.evidence(case.seed, case.task.name, method)
  row = workdir.row(method, case.seed, **request)
  arrays = workdir.read_arrays(place)
  if row is not None and arrays is not None:
    return Evidence(row["metrics"], arrays)
  meter = Meter()
  evidence = study.audit(method, outcome, case)
  curve = {"curve": np.asarray(outcome.curve)}
  arrays = {**evidence.arrays, **outcome.arrays, **curve}
  workdir.write_arrays(place, arrays)
  if row is None:
    workdir.add_row(
      outcome.row(
        method,
        case.seed,
        evidence.metrics,
        retrain=case.retrained.seconds,
        audit=meter,
        **request,
      )
    )
  return Evidence(evidence.metrics | outcome.notes, arrays)


def _check_names(tasks: Sequence[Sequence[T]]) -> None:
  """Rows, evidence and chapters are told apart by the requests' names."""
  first = [task.name for task in tasks[0]]
  for seed, of_seed in enumerate(tasks):
    names = [task.name for task in of_seed]
    if names != first or len(set(names)) < len(names):
      raise ValueError(
        f"seed {seed} has the requests {names}; they must be those of seed 0, "
        f"{first}, each with a name of its own."
      )


@contextlib.contextmanager
def _phase_of_its_own(
  study: Study[T], seed: int, task: T, method: str
) -> Iterator[None]:
  """Refuses a model that was read back from another's phase."""
  before = set(study.session.phases)
  yield
  if study.session.phases <= before:
    raise ValueError(
      f"{findings.place(seed, task.name, method)} has no phase of its own; the "
      "names of phases must tell seeds, requests and methods apart."
    )


def _write(
  study: Study[T], workdir: Workdir, tasks: Sequence[Sequence[T]]
) -> Path:
  """The page: a chapter a request where a seed has several."""
  chapters = []
  for of_request in zip(*tasks, strict=True):
    name = of_request[0].name
    found = findings.collect(workdir, name, len(tasks))
    measured = {m for row in found.rows for m in row["metrics"]}
    chapters.append(
      report.Chapter(
        name=study.chapter(name),
        request=study.deletion(of_request),
        metrics=[m for m in study.METRICS if m.name in measured],
        rows=found.rows,
        figures=[f for f in study.figures(found) if f is not None],
        sections=study.sections(found),
      )
    )
  return workdir.write_report(
    title=study.title,
    not_proven=study.NOT_PROVEN,
    chapters=chapters,
    certificate=study.certificate(),
  )
