"""One page that says how close unlearning came to retraining.

    report.write(workdir, title=..., request=report.Deletion(...),
                 metrics=[report.Metric(...)], rows=rows,
                 figures=[report.roc(curves)], not_proven=[...], config=config)

It takes rows of `results.jsonl`, descriptions of their metrics and figures; it
knows nothing about models or modalities.
"""

from junlearn.report.forest import gaps
from junlearn.report.judgement import over_forgotten, verdict
from junlearn.report.metric import Metric
from junlearn.report.page import Deletion, write
from junlearn.report.plots import (
  Curve,
  Roc,
  Values,
  distributions,
  roc,
  trajectories,
)
from junlearn.report.summary import Entry, PerSeed, Summary, summarize

__all__ = [
  "Curve",
  "Deletion",
  "Entry",
  "Metric",
  "PerSeed",
  "Roc",
  "Summary",
  "Values",
  "distributions",
  "gaps",
  "over_forgotten",
  "roc",
  "summarize",
  "trajectories",
  "verdict",
  "write",
]
