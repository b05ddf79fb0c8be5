"""The summary in words: who is closest, does an attack see it, who overdoes."""

from junlearn.report.metric import Metric, show
from junlearn.report.summary import FALL, RISE, Summary


def _listed(names) -> str:
  *most, last = names
  return f"{', '.join(most)} and {last}" if most else last


def _closest(summary: Summary) -> str:
  if not summary.ranking:
    return (
      "No method can be ranked: none has a seed in which it and retraining "
      "have all the compared metrics."
    )
  best, *others = summary.ranking
  average = summary.average
  points = {method: show(a.mean) for method, a in average.items()}
  text = (
    f"{best} comes closest to retraining: its average gap is {points[best]} "
    "points"
  )
  if len(summary.candidates) > 1:
    text = f"Of {len(summary.candidates)} methods, {text}"
  if "original" in average:
    text += f", against {points['original']} for the model before unlearning"
    if average[best].mean >= average["original"].mean:
      text += ", so no method brought it any closer"
  text += "."
  # With one seed `sign` is the sign of that seed, so nothing counts as tied.
  tied = [m for m in others if not average[m].minus(average[best]).sign]
  if tied:
    text += (
      f" The seeds do not tell {_listed([f'{m} ({points[m]})' for m in tied])}"
      f" apart from it."
    )
  unranked = [m for m in summary.candidates if m not in average]
  if unranked:
    text += f" Not ranked, for lack of some metric: {_listed(unranked)}."
  return text


def _attacks(summary: Summary) -> str:
  attacks = [m for m in summary.metrics if m.compare and m.chance is not None]
  if not attacks:
    return "No attack was run."
  if not summary.ranking:
    return ""
  entries = summary.entries[summary.ranking[0]]
  known = [m for m in attacks if entries[m.name].gap.num_seeds > 1]
  if not known:
    return "Too few seeds to judge its attack results by an interval."
  apart = [m for m in known if entries[m.name].gap.sign]
  level = [m for m in known if m not in apart]
  text = []
  if level:
    text.append(
      f"The 95 % interval of its {_listed([m.label for m in level])} includes "
      "retraining's."
    )
  text += [
    f"Its {m.label} differs from retraining's: "
    f"{m.show(entries[m.name].value.mean)} against "
    f"{m.show(summary.entries['retrain'][m.name].value.mean)}."
    for m in apart
  ]
  return " ".join(text)


def over_forgotten(summary: Summary, method: str) -> tuple[Metric, ...]:
  """The metrics in which a method has forgotten more than retraining does."""
  back = {-1: RISE, 1: FALL}
  return tuple(
    metric
    for metric in summary.metrics
    if metric.forgetting
    and summary.entries[method][metric.name].arrow == back[metric.forgetting]
  )


def _excess(summary: Summary, method: str) -> str:
  """What a method overdoes, as `method (Attack AUC past chance)`."""
  parts = []
  for metric in over_forgotten(summary, method):
    mean, chance = (
      summary.entries[method][metric.name].value.mean,
      metric.chance,
    )
    text = metric.label
    if chance is not None and (mean - chance) * metric.forgetting > 0:
      text += " past chance"
    parts.append(text)
  return f"{method} ({', '.join(parts)})"


def _over(summary: Summary) -> str:
  if not any(metric.forgetting for metric in summary.metrics):
    return ""
  guilty = [m for m in summary.candidates if over_forgotten(summary, m)]
  if not guilty:
    return "No method is seen to forget more than retraining does."
  return (
    "More is forgotten than by retraining, a failure too, by "
    f"{_listed([_excess(summary, m) for m in guilty])}."
  )


def verdict(summary: Summary) -> str:
  """A few honest sentences for the top of the page.

  They name the method with the least average gap and those that the seeds do
  not tell apart from it, say whether the attacks (metrics with a `chance`)
  still see a difference between it and retraining, and which methods
  over-forget (metrics with a direction of `forgetting`).
  """
  if "retrain" not in summary.methods:
    return "No retrained model to compare with: nothing can be concluded."
  parts = [_closest(summary), _attacks(summary), _over(summary)]
  if len(summary.seeds) == 1:
    parts.append("One seed only: chance is not ruled out.")
  return " ".join(part for part in parts if part)
