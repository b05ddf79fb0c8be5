"""Reads runs for the verifier as `network_remeasure` does, compiled once.

Many copies of one run are verified in one process: what follows from its flags
alone, records, networks and compiled bounds, is kept from one to the next.
"""

import json
from pathlib import Path

from experiments.decentralized import remeasure
from experiments.decentralized.remeasure import EXPERIMENT, names, terms
from experiments.run.workdir import read_config

__all__ = ["EXPERIMENT", "Reader", "names", "terms"]

_READERS: dict[str, "Reader"] = {}


class Reader(remeasure.Reader):
  """What a run kept, with what another of the same flags has made."""

  def __init__(self, folder: Path):
    flags = json.dumps(read_config(folder)["flags"], sort_keys=True)
    if flags not in _READERS:
      super().__init__(folder)
      _READERS[flags] = self
    self.__dict__ |= {**_READERS[flags].__dict__, "_folder": folder}
