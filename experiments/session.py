"""Phases of a run: timed, shown, checkpointed, and skipped when done.

A phase is a transform whose loop is the session's. Its result is kept under
`checkpoints/NAME`, with what was measured beside it; a run that starts again
with the same command reads finished phases and continues the one under way.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.bar import Bar
from experiments.meter import Meter, peak_memory
from experiments.workdir import Workdir
from junlearn import checkpoint, loop
from junlearn.transform import Result


class Outcome(NamedTuple):
  """What a phase left.

  Attributes:
    params: the weights.
    seconds: without compilation, evaluation and checkpoints.
    compile: seconds of compilation.
    peak_memory_bytes: of the device or process during the phase.
    curve: rows of step and what `evaluate` returned.
    notes: numbers taken from the transform's info.
  """

  params: Any
  seconds: float
  compile: float
  peak_memory_bytes: int
  curve: list[list[float]]
  notes: dict[str, float]


class Session:
  """Runs the phases of a run and shows how far it is.

  Args:
    workdir: where checkpoints go.
    total: steps of one model that all phases take together.
    points: points of a phase's curve, after the one at its start.

  Attributes:
    loop: for the transforms of the phases.
  """

  def __init__(self, workdir: Workdir, total: int, *, points: int = 12):
    self._workdir = workdir
    self._points = points
    self._phase: _Phase | None = None
    self.bar = Bar(total)
    self.loop = loop.host(every=10, watch=self._watch, checkpoint=self)

  def phase(
    self,
    name: str,
    transform: Callable[[], Result],
    *,
    start: Any,
    steps: int,
    models: int = 1,
    evaluate: Callable[[Any], tuple[float, ...]] | None = None,
    note: Callable[[Any], dict[str, float]] | None = None,
  ) -> Outcome:
    """The phase's outcome, computed now or read back.

    Args:
      name: unique; its place under `checkpoints`.
      transform: called without arguments, gives the phase's result.
      start: what the phase starts from, or its abstract form if the transform
        draws fresh params; gives the structure of the result.
      steps: of the loop inside.
      models: trained at once.
      evaluate: `params -> values`, for the curve.
      note: `info -> numbers` to keep.
    """
    path = self._workdir / "checkpoints" / name
    record = f"checkpoints/{name}.json"
    if checkpoint.exists(path):
      params = checkpoint.load(path, start)
      self.bar.skip(steps * models)
      measured = json.loads((self._workdir / record).read_text())
      return Outcome(params, **measured)
    phase = _Phase(
      name, path.with_name(f"{path.name}.underway"), models, evaluate, start,
      self._points,
    )  # fmt: skip
    self._phase = phase
    result = transform()
    params = jax.block_until_ready(result.params)
    measured = {
      **phase.measured(),
      "notes": note(result.info) if note else {},
    }
    # The record first: where the checkpoint stands, its record stands too.
    self._workdir.write(record, json.dumps(measured))
    checkpoint.save(path, params)
    phase.progress.clear()
    self._phase = None
    return Outcome(params, **measured)

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
    loss = float(np.mean(infos["loss"][done - 1]))
    self.bar.update(steps * phase.models, phase.name, loss)


class _Phase:
  """What is counted and kept while a phase is under way."""

  def __init__(self, name, path, models, evaluate, start, points):
    self.name, self.models = name, models
    self._evaluate, self._points = evaluate, points
    first = [0.0, *evaluate(start)] if evaluate else [0.0]
    self._curve = np.full((points + 1, len(first)), np.nan)
    self._curve[0] = first
    self._before = np.zeros(2)  # seconds and compile of earlier runs
    self._spent = np.zeros(2)
    self.progress = checkpoint.Progress(
      path, notes={"curve": self._curve, "spent": self._spent}
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
