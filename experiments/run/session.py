"""Phases of a run: timed, shown, checkpointed, and skipped when done.

A phase is a transform whose loop is the session's. Its result is kept under
`checkpoints/NAME`, with what was measured beside it; a run that starts again
with the same command reads finished phases and continues the one under way.

In a job of several processes all run every phase, and go on with the params
that the first one has at its end.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.run.bar import Bar
from experiments.run.meter import Meter, peak_memory
from experiments.run.workdir import Workdir
from junlearn import loop, tree
from junlearn.parallel import processes
from junlearn.storage import checkpoint
from junlearn.transform import Result


class Outcome(NamedTuple):
  """What a phase left.

  Attributes:
    params: the weights.
    seconds: without compilation, evaluation and checkpoints.
    compile: seconds of compilation.
    peak_memory_bytes: of the device or process during the phase.
    curve: rows of step and what `evaluate` returned.
    notes: what was taken from the transform's info, as JSON can hold it.
    params_sha256: `tree.digest` of the weights.
    arrays: values behind the notes, for figures; not kept with the phase.
  """

  params: Any
  seconds: float
  compile: float
  peak_memory_bytes: int
  curve: list[list[float]]
  notes: dict[str, Any]
  params_sha256: str
  arrays: Mapping[str, np.ndarray] = {}

  def row(
    self,
    method: str,
    seed: int,
    metrics: dict[str, float],
    *,
    retrain: float,
    audit: Meter,
    **more: Any,
  ) -> dict[str, Any]:
    """The row of `results.jsonl` of a method whose only phase this was.

    Args:
      method: its name.
      seed: of the run.
      metrics: that were measured; the notes are added.
      retrain: seconds that retraining took.
      audit: measures from the beginning of the audit.
      **more: what else names the row.
    """
    seconds, compiled = audit.read().tolist()
    return {
      **more,
      "method": method,
      "seed": seed,
      "metrics": metrics | self.notes,
      "seconds": {
        "unlearn": self.seconds,
        "retrain": retrain,
        "audit": seconds,
        "compile": self.compile + compiled,
      },
      "peak_memory_bytes": self.peak_memory_bytes,
      "params_sha256": self.params_sha256,
    }


class Session:
  """Runs the phases of a run and shows how far it is, until it is left.

  Args:
    workdir: where checkpoints go.
    total: steps of one model that all phases take together; None where that is
      not known beforehand.
    folder: below `checkpoints`, where several sessions share a run.
    points: points of a phase's curve, after the one at its start.
    every: steps between two looks at a phase under way.
    checkpoint_seconds: least time between two saves of a phase under way.

  Attributes:
    workdir: as given.
    phases: names of those asked for.
    loop: for the transforms of the phases.
    communicating_loop: for those of a population spread over processes
      (`models`) whose members communicate.
  """

  def __init__(
    self,
    workdir: Workdir,
    total: int | None = None,
    *,
    folder: str = "",
    points: int = 12,
    every: int = 10,
    checkpoint_seconds: float = 10.0,
  ):
    self.workdir = workdir
    self._folder = Path("checkpoints", folder)
    self._points = points
    self._seconds = checkpoint_seconds
    self._phase: _Phase | None = None
    self.phases: set[str] = set()
    self.bar = Bar(total)
    options = {"every": every, "watch": self._watch, "checkpoint": self}
    self.loop = loop.host(**options)
    # For members that talk over processes, whose step compiles by itself.
    self.communicating_loop = loop.host(
      **options, compiled=jax.process_count() == 1
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.bar.close()

  def phase(
    self,
    name: str,
    transform: Callable[[], Result],
    *,
    start: Any,
    steps: int,
    models: int = 1,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    note: Callable[[Any], dict[str, Any]] | None = None,
  ) -> Outcome:
    """The phase's outcome, computed now or read back.

    Args:
      name: unique; its place under `checkpoints`.
      transform: called without arguments, gives the phase's result.
      start: what the phase starts from, or its abstract form if the transform
        draws fresh params; gives the structure of the result.
      steps: of the loop inside.
      models: trained at once; if several, they are on axis 0 of what the loop
        carries, and each process has its own (`processes.local_shard`).
      evaluate: `params -> values`, for the curve; sees all members.
      note: `info -> what to keep`, as JSON can hold it.

    Raises:
      ArithmeticError: if a loss or the params become non-finite; what was
        kept before stays.
      ValueError: if what was kept is damaged or is not this phase's.
    """
    self.phases.add(name)
    path = self.workdir / self._folder / name
    underway = path.with_name(f"{path.name}.underway")
    if checkpoint.exists(path):
      outcome = self._read(name, start)
      self.bar.skip(steps * models)
      # What a run left that was killed before it could clear.
      checkpoint.Progress(underway).clear()
      return outcome
    phase = self._phase = _Phase(
      name, underway, models, evaluate, start, self._points, self._seconds
    )
    try:
      result = transform()
    except loop.NonFiniteError as error:
      raise loop.NonFiniteError(f"{name}: {error}") from error
    params = processes.broadcast(jax.block_until_ready(result.params))
    if not tree.all_finite(params):
      raise loop.NonFiniteError(f"{name}: params are not finite at the end.")
    measured = {
      **phase.measured(),
      "notes": note(result.info) if note else {},
      "params_sha256": tree.digest(params),
    }
    # The record first: where the checkpoint stands, its record stands too.
    self.workdir.write(str(self._folder / f"{name}.json"), json.dumps(measured))
    checkpoint.save(path, params)
    phase.progress.clear()
    self._phase = None
    return Outcome(params, **measured)

  def _read(self, name: str, start: Any) -> Outcome:
    path = self.workdir / self._folder / name
    params = checkpoint.load(path, start)
    record = path.with_name(f"{path.name}.json")
    content = self.workdir.read(str(self._folder / f"{name}.json"))
    try:
      outcome = Outcome(params, **json.loads(content or b""))
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{record} is missing or damaged ({error}); delete {path} to run "
        f"{name} again."
      ) from error
    if tree.digest(params) != outcome.params_sha256:
      raise ValueError(
        f"{path} is not the checkpoint that {record} describes; delete it to "
        f"run {name} again."
      )
    return outcome

  def restore(self, carry, infos):
    """As `loop.Checkpoint`, for the phase under way."""
    done, carry, infos = self._phase.restore(carry, infos)
    self.bar.skip(done * self._phase.models)
    return done, carry, infos

  def save(self, step, carry, infos):
    """As `loop.Checkpoint`, for the phase under way."""
    self._phase.save(step, carry, infos)

  def _watch(self, done, total, carry, infos):
    phase = self._phase
    steps = phase.look(done, total, carry.params)
    status = [phase.name]
    for name in ("loss", "residual"):
      if name in infos:
        status.append(f"{name} {float(np.mean(infos[name][done - 1])):.3g}")
    self.bar.update(steps * phase.models, ", ".join(status))


class _Phase:
  """What is counted and kept while a phase is under way."""

  def __init__(self, name, path, models, evaluate, start, points, seconds):
    self.name, self.models = name, models
    self._evaluate, self._points = evaluate, points
    first = [0.0, *evaluate(start)] if evaluate else [0.0]
    self._curve = np.full((points + 1, len(first)), np.nan)
    self._curve[0] = first
    self._before = np.zeros(2)  # seconds and compile of earlier runs
    self._spent = np.zeros(2)
    self.progress = checkpoint.Progress(
      path,
      seconds=seconds,
      notes={"curve": self._curve, "spent": self._spent},
      spread=models > 1,
    )
    self._done = 0
    self._meter = Meter()

  def restore(self, carry, infos):
    with self._meter:
      restored = self.progress.restore(carry, infos)
    self._before, self._done = self._spent.copy(), restored[0]
    return restored

  def save(self, step, carry, infos):
    self._spent[:] = self._before + self._meter.read()
    with self._meter:
      self.progress.save(step, carry, infos)

  def look(self, done, total, params):
    """Adds the points of the curve that are due; returns the steps since."""
    steps, self._done = done - self._done, done
    point = done * self._points // total
    if self._evaluate and np.isnan(self._curve[point, 0]):
      with self._meter:
        if self.models > 1:
          params = processes.gather(params)
        self._curve[point] = [done, *self._evaluate(params)]
    return steps

  def measured(self):
    seconds, compiled = (self._before + self._meter.read()).tolist()
    return {
      "seconds": seconds,
      "compile": compiled,
      "peak_memory_bytes": peak_memory(),
      "curve": self._curve[~np.isnan(self._curve[:, 0])].tolist(),
    }
