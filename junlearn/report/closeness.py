"""The central table: every method's values and distance to retraining."""

import math

from junlearn.report.blocks import Block, Cell, Table, Terms, Text
from junlearn.report.metric import MISSING, Metric, show, with_spread
from junlearn.report.summary import FALL, LEVEL, REFERENCES, RISE, Summary

_DESCRIPTIONS = {
  RISE: "must rise to meet it",
  FALL: "must fall to meet it",
  LEVEL: "not told apart from it",
}


def _cell(summary: Summary, method: str, metric: Metric) -> Cell:
  entry = summary.entries[method][metric.name]
  text = metric.show(entry.value.mean, entry.value.std)
  runs = entry.value.num_seeds
  if 0 < runs < len(summary.seeds):
    text += f" ({runs} of {len(summary.seeds)} seeds)"
  if method == "retrain" or not metric.compare or not runs:
    return Cell(text)
  distance = metric.show(entry.distance.mean)
  if distance == MISSING:
    return Cell(text, f"distance {MISSING}")
  return Cell(
    text,
    note=f"{entry.arrow} {distance}",
    description=f"{distance} from retraining, {_DESCRIPTIONS[entry.arrow]}",
    strong=method in summary.closest(metric.name),
  )


def _average(summary: Summary, method: str) -> Cell:
  if method == "retrain":
    return Cell("0")
  if method not in summary.average:
    return Cell(MISSING)
  average = summary.average[method]
  text = with_spread(average.mean, average.std)
  return Cell(text, strong=method == next(iter(summary.ranking), None))


def _rule(summary: Summary) -> str:
  if len(summary.seeds) < 2:
    return (
      "There is one seed only: no spread can be given, and an arrow is just "
      f"the sign of that seed's gap ({LEVEL} where it is exactly 0)."
    )
  return (
    f"The sign {LEVEL} stands where the 95 % Student interval of the mean gap, "
    "paired by seed, contains 0: these seeds do not tell the method from "
    "retraining, which is no proof that they are equal. The fewer the seeds, "
    "the wider the interval; it is not corrected for the number of cells."
  )


def closeness(summary: Summary) -> list[Block]:
  """The table, how to read it, and what its columns mean."""
  columns = [metric.heading for metric in summary.metrics]
  rows = [
    [
      Cell(method),
      _average(summary, method),
      *(_cell(summary, method, metric) for metric in summary.metrics),
    ]
    for method in summary.methods
  ]
  averaged = ", ".join(metric.label for metric in summary.averaged)
  spans = "".join(
    f"; {metric.label} as a fraction of {show(metric.span, 3)}"
    for metric in summary.averaged
    if metric.span is not None and not math.isclose(metric.span, 1.0)
  )
  seeds = ", ".join(str(seed) for seed in summary.seeds)
  return [
    Table(
      "Closer to retraining is better, higher or lower is not. Each cell: "
      "mean ± standard deviation over seeds; then the mean distance to the "
      "retrained model of the same seed, and which way to go to meet it "
      f"({RISE} rise, {FALL} fall). Set off: the closest method.",
      ["Method", "Average gap (points)", *columns],
      rows,
      references=sum(m in REFERENCES for m in summary.methods),
    ),
    Text(f"Seeds: {seeds or 'none'}. {_rule(summary)}"),
    Terms(
      [
        (
          "Average gap",
          f"Mean distance to retraining over {averaged or 'no metric'}"
          f"{spans}, in hundredths; for rates these are percentage points.",
        ),
        *((metric.label, metric.help) for metric in summary.metrics),
      ]
    ),
  ]
