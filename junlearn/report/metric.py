"""What a number in a row of results means, and how it is shown."""

import math
from typing import Any, NamedTuple

MISSING = "n/a"


def finite(value: Any) -> float:
  """The value as a float; NaN where it is missing, infinite or no number."""
  try:
    number = float(value)
  except (TypeError, ValueError):
    return math.nan
  return number if math.isfinite(number) else math.nan


def show(value: float, digits: int = 1) -> str:
  """Fixed-point text with a true minus sign; `n/a` where not finite."""
  if not math.isfinite(value):
    return MISSING
  # Adding 0.0 turns the negative zero that rounding can leave into zero.
  rounded = round(value, digits) + 0.0
  text = f"{rounded:.{digits}f}" if abs(rounded) < 1e6 else f"{rounded:.3g}"
  return text.replace("-", "\N{MINUS SIGN}")


def with_spread(value: float, spread: float, digits: int = 1) -> str:
  """`mean ± spread`, or the mean alone where there is no spread."""
  if not math.isfinite(value) or not math.isfinite(spread):
    return show(value, digits)
  return f"{show(value, digits)} ± {show(spread, digits)}"


class Metric(NamedTuple):
  """One measured quantity.

  Attributes:
    name: its key in a row's `metrics`.
    label: its name on the page.
    unit: its unit once scaled, "" where it has none.
    scale: what a raw value is multiplied by to be shown (100 for percent).
    help: one sentence for a reader who meets it for the first time.
    compare: whether its distance to retraining says anything; False for a
      quantity that is only informative.
    digits: decimals on the page; None takes 1 for percent and 3 otherwise.
    span: the raw distance that counts as 100 points in the average gap (1 for
      a rate or an AUC); None leaves the metric out of the average.
    forgetting: which way stronger forgetting moves it: -1 (forget accuracy,
      an attack's AUC), +1 (forget loss), 0 where it is not about forgetting.
      Past retraining in this direction is over-forgetting.
    chance: what a blind guess scores; marks the metric as an attack's.
  """

  name: str
  label: str
  unit: str = ""
  scale: float = 1.0
  help: str = ""
  compare: bool = True
  digits: int | None = None
  span: float | None = 1.0
  forgetting: int = 0
  chance: float | None = None

  @property
  def heading(self) -> str:
    """Label and unit."""
    return f"{self.label} ({self.unit})" if self.unit else self.label

  @property
  def decimals(self) -> int:
    """Decimals on the page."""
    if self.digits is not None:
      return self.digits
    return 1 if self.unit == "%" else 3

  def show(self, value: float, spread: float = math.nan) -> str:
    """A raw value, and perhaps its spread, as the page shows them."""
    scaled = value * self.scale, spread * self.scale
    return with_spread(*scaled, digits=self.decimals)
