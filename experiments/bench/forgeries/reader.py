"""Reads runs as `decentralized.remeasure` does, but compiles only once.

Many copies of one run are verified in one process: what follows from its flags
alone, records, networks and compiled bounds, is kept from one to the next.
"""

import copy
import json
from pathlib import Path

from experiments.decentralized import remeasure
from experiments.decentralized.remeasure import promised, releases
from experiments.run.workdir import read_config

__all__ = ["promised", "reader", "releases"]

_READERS = {}


def reader(folder: Path):
  """Of a folder, with what another of the same flags has made."""
  flags = json.dumps(read_config(folder)["flags"], sort_keys=True)
  if flags not in _READERS:
    _READERS[flags] = remeasure.reader(folder)
  found = copy.copy(_READERS[flags])
  found.folder = folder
  return found
