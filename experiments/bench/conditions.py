"""Under what conditions a benchmark ran, for the foot of its table."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from experiments.run.workdir import describe


def conditions(before: tuple[float, ...], packages: Sequence[str] = ()) -> str:
  """Machine, load, versions, command and commit, as Markdown.

  Args:
    before: load averages when the benchmark began.
    packages: whose versions matter, beside those that every run records.
  """
  record = describe({})
  installed = {name: metadata.version(name) for name in packages}
  versions = ", ".join(
    f"{name} {v}" for name, v in {**record["versions"], **installed}.items()
  )
  device = record["device"]
  after = os.getloadavg()
  return "\n".join(
    [
      f"- machine: {_processor()}, {device['cores']} cores; "
      f"{device['count']} device(s) of kind {device['kind']}",
      f"- load average: {before[0]:.1f} at the start, {after[0]:.1f} at the "
      "end (the benchmark's own threads included)",
      f"- versions: {versions}",
      f"- command: {record['command']}",
      f"- commit: {record['commit']}",
    ]
  )


def _processor() -> str:
  """The processor's name as the system knows it."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or "unknown processor"
  names = [
    line.split(":")[1] for line in lines if line.startswith("model name")
  ]
  return names[0].strip() if names else "unknown processor"
