"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm

from junlearn.parallel import processes


class Bar:
  """Shows steps done, the phase and its status, and the time left.

  Of several processes only the first one shows anything.

  Args:
    total: steps of one model that the run takes in all.
    seconds: between two plain lines.
  """

  def __init__(self, total: int, *, seconds: float = 10.0):
    self._seconds = seconds
    self._shown = self._start = time.monotonic()
    self._skipped = 0
    terminal = sys.stderr.isatty()
    self._tqdm = tqdm.tqdm(
      total=total,
      file=sys.stderr,
      disable=not (terminal and processes.is_first()),
      unit="step",
      dynamic_ncols=True,
      smoothing=0,
      bar_format="{percentage:3.0f}%|{bar}| {desc} {elapsed}, {remaining} left",
    )
    self._plain = processes.is_first() and not terminal
    self._done, self._total = 0, total

  def skip(self, steps: int) -> None:
    """Counts steps that an earlier run took, as if they took no time."""
    self._skipped += steps
    self._done += steps
    self._tqdm.initial, self._tqdm.n = self._skipped, self._done
    self._tqdm.refresh()

  def update(self, steps: int, status: str) -> None:
    """Counts steps taken and shows the status."""
    self._tqdm.set_description_str(status, refresh=False)
    self._done += steps
    self._tqdm.update(steps)
    now = time.monotonic()
    if self._plain and now - self._shown >= self._seconds:
      taken = max(self._done - self._skipped, 1)
      left = (now - self._start) / taken * (self._total - self._done)
      self.say(
        f"{self._done / self._total:4.0%}  {status}, about {left:.0f} s left"
      )
      self._shown = now

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    self._tqdm.write(line, file=sys.stderr)

  def close(self, *, finished: bool) -> None:
    """Leaves the line; the bar of a finished run is full."""
    if finished:
      self.skip(self._total - self._done)  # what the run did without
    self._tqdm.close()
