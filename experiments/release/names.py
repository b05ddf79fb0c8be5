"""What a release is called: in its folder, its phases and the ledger."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Name(NamedTuple):
  """The name of a release; as text, such as `seed0/newton/1`.

  Attributes:
    seed: of the run.
    method: that answered.
    index: of the request among successive ones.
  """

  seed: int
  method: str
  index: int

  def __str__(self) -> str:
    """The folder of the release below `releases`."""
    return f"seed{self.seed}/{self.method}/{self.index}"

  def phase(self, stage: str) -> str:
    """One of its phases: "corrected", "retrained" or "released"."""
    return f"{self}-{stage}"


def of_run(seeds: int, methods: Sequence[str], requests: int) -> list[Name]:
  """The releases of a run, in the order of the ledger."""
  return [
    Name(*parts)
    for parts in itertools.product(range(seeds), methods, range(requests))
  ]
