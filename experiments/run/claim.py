"""A claim: a measured quantity against a threshold fixed beforehand."""

import math
import operator
from typing import NamedTuple

_COMPARE = {
  "<": operator.lt,
  "<=": operator.le,
  ">": operator.gt,
  ">=": operator.ge,
}


class Claim(NamedTuple):
  """One line of evidence.

  Attributes:
    system: such as "amun".
    number: of the claim within its system; parts are told by a letter.
    data: the data set.
    quantity: what was measured, in words.
    comparison: "<", "<=", ">" or ">=".
    threshold: what the claim demands.
    measured: what was found; NaN fails.
  """

  system: str
  number: str
  data: str
  quantity: str
  comparison: str
  threshold: float
  measured: float

  @property
  def passed(self) -> bool:
    """Whether the measured value satisfies the comparison."""
    if math.isnan(self.measured):
      return False
    return _COMPARE[self.comparison](self.measured, self.threshold)

  def __str__(self) -> str:
    verdict = "passed" if self.passed else "FAILED"
    return (
      f"{verdict}  {self.system} {self.number} [{self.data}] {self.quantity} "
      f"{self.comparison} {self.threshold:.4g}: {self.measured:.4g}"
    )

  def record(self) -> dict[str, object]:
    """The claim as a row of `claims.json`."""
    return {**self._asdict(), "passed": self.passed}
