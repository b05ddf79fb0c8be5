"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm

from junlearn.parallel import processes

_KNOWN = "{percentage:3.0f}%|{bar}| {desc} {elapsed}, {remaining} left"
_OPEN = "{n_fmt} steps, {desc} {elapsed}"


class Bar:
  """Shows steps done, the phase and its status, and the time left.

  Of several processes only the first one shows anything.

  Args:
    total: steps of one model that the run takes in all; None where that is not
      known, and then nothing is said of what is left.
    seconds: between two plain lines.

  Attributes:
    done: steps so far, by this run or an earlier one.
  """

  def __init__(self, total: int | None = None, *, seconds: float = 10.0):
    self._seconds = seconds
    self._shown = self._start = time.monotonic()
    self._skipped = 0
    self.done, self._total = 0, total
    terminal = sys.stderr.isatty()
    self._tqdm = tqdm.tqdm(
      total=total,
      file=sys.stderr,
      disable=not (terminal and processes.is_first()),
      unit="step",
      dynamic_ncols=True,
      smoothing=0,
      bar_format=_KNOWN if total else _OPEN,
    )
    self._plain = processes.is_first() and not terminal

  def skip(self, steps: int) -> None:
    """Counts steps that an earlier run took, as if they took no time."""
    self._skipped += steps
    self.done += steps
    self._tqdm.initial, self._tqdm.n = self._skipped, self.done
    self._tqdm.refresh()

  def update(self, steps: int, status: str) -> None:
    """Counts steps taken and shows the status."""
    self._tqdm.set_description_str(status, refresh=False)
    self.done += steps
    if self._total and self.done > self._total:  # what could not be foreseen
      self._total = self._tqdm.total = self.done
    self._tqdm.update(steps)
    now = time.monotonic()
    if self._plain and now - self._shown >= self._seconds:
      self.say(self._line(status, now))
      self._shown = now

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    self._tqdm.write(line, file=sys.stderr)

  def close(self) -> None:
    """Leaves the line."""
    self._tqdm.close()

  def _line(self, status, now):
    if not self._total:
      return f"{self.done} steps  {status}"
    taken = max(self.done - self._skipped, 1)
    left = (now - self._start) / taken * (self._total - self.done)
    return f"{self.done / self._total:4.0%}  {status}, about {left:.0f} s left"
