"""What is measured of a language model, and what the numbers do not prove."""

from experiments.language import attacks, knowledge
from experiments.run.study import Evidence
from junlearn.report import Metric

METRICS = (
  *knowledge.METRICS,
  *attacks.METRICS,
  Metric(
    "steps",
    "Steps",
    help="Taken by the method.",
    compare=False,
    digits=0,
  ),
)

NOT_PROVEN = (
  "The numbers are empirical: they bound what these attacks found, not what a "
  "better one could. No method here carries a certificate.",
  "A forgotten answer that is replaced by another is a trace itself: LUNE's "
  "models answer with confidence where retrained ones do not.",
  "Fictitious authors share names and few values, and a tiny decoder has no "
  "other knowledge; what holds for it need not hold for a large one.",
  "Attackers relearn with one learning rate for at most 20 steps; longer "
  "attacks relearn more, from the retrained model too.",
  "The default learning rates were chosen on seeds of their own by the average "
  "gap to retraining: an oracle that a deployment does not have.",
)


def together(*parts: Evidence) -> Evidence:
  """All that several measurements found."""
  metrics, arrays = {}, {}
  for part in parts:
    metrics |= part.metrics
    arrays |= part.arrays
  return Evidence(metrics, arrays)
