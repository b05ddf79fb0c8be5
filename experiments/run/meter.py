"""Seconds, compilation and peak memory of a phase."""

import resource
import time
from pathlib import Path

import jax
import numpy as np

_STATUS = Path("/proc/self/status")
_compiled = 0.0


def _on_duration(event: str, seconds: float, **_: object) -> None:
  global _compiled
  if event.startswith("/jax/core/compile/"):
    _compiled += seconds


jax.monitoring.register_event_duration_secs_listener(_on_duration)


class Meter:
  """Measures from its creation; what happens in `pause` does not count."""

  def __init__(self):
    self._start = time.monotonic()
    self._compiled = _compiled
    self._paused = 0.0
    self._pause_start = self._pause_compiled = 0.0
    _reset_peak()

  def __enter__(self):
    """Begins a pause."""
    self._pause_start, self._pause_compiled = time.monotonic(), _compiled
    return self

  def __exit__(self, *_):
    self._paused += time.monotonic() - self._pause_start
    self._compiled += _compiled - self._pause_compiled

  def read(self) -> np.ndarray:
    """Seconds `[2]`: running, and tracing, lowering and compiling."""
    compiled = _compiled - self._compiled
    wall = time.monotonic() - self._start - self._paused
    return np.array([max(wall - compiled, 0.0), compiled])


def peak_memory() -> int:
  """Bytes: of the device if it reports them, else of the process.

  On Linux the process's peak counts from the last `Meter` on; elsewhere from
  the start of the process.
  """
  stats = jax.local_devices()[0].memory_stats()
  if stats and "peak_bytes_in_use" in stats:
    return int(stats["peak_bytes_in_use"])
  if _STATUS.exists():
    for line in _STATUS.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) * 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
  """Asks Linux to count the peak anew; harmless where it refuses."""
  try:
    Path("/proc/self/clear_refs").write_text("5")
  except OSError:
    return
