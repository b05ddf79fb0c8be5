"""What is asked for: a backdoor, a bias or a sensitive column to be forgotten.

`backdoor`: the client's digits carry a trigger and the label that it stands
for. `bias`: the color of the client's digits tells their label, the others'
color does not. `sensitive`: a binary column of a table is private.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.feature import metrics, tasks
from experiments.feature.recipe import Recipe
from experiments.feature.tasks import Task
from junlearn.data import Dataset
from junlearn.model import Model
from junlearn.report import Metric


class Scenario(NamedTuple):
  """What is asked for.

  Attributes:
    make: `(dataset, recipe, seed) -> Task`.
    measure: `(model, params, task) -> metrics`.
    metrics: what these mean.
    rates: learning rate of each method, chosen by the claims on seeds of their
      own (experiments/results/claims_ferrari.md).
    compared: metrics of the average gap to retraining; the first one is an
      accuracy.
    selection: of what is to be forgotten, as the page tells it.
    tracked: the tests on which a curve is measured.
    num_classes: of the labels; None for those of the data set.
    options: of `ferrari.transform`.
  """

  make: Callable[[Dataset | None, Recipe, int], Task]
  measure: Callable[[Model, Any, Task], dict[str, float]]
  metrics: Sequence[Metric]
  rates: Mapping[str, float]
  compared: tuple[str, str]
  selection: str
  tracked: str
  num_classes: int | None = None
  options: Mapping[str, Any] = {}

  @property
  def accuracy(self) -> Metric:
    """The accuracy that unlearning should keep."""
    return next(m for m in self.metrics if m.name == self.compared[0])


SCENARIOS = {
  "backdoor": Scenario(
    tasks.backdoor,
    metrics.backdoor,
    metrics.BACKDOOR,
    rates={"ferrari": 0.01, "finetune": 0.1},
    compared=("test_accuracy", "attack_success"),
    selection="The examples of the first client, first seed; what is forgotten "
    "is the trigger in their corner, not the records. Retraining goes without "
    "this client.",
    tracked="clean",
    options={"target": tasks.TARGET},
  ),
  "bias": Scenario(
    tasks.bias,
    metrics.bias,
    metrics.BIAS,
    rates={"ferrari": 0.03, "finetune": 0.01},
    compared=("unbiased_accuracy", "biased_accuracy"),
    selection="The examples of the first client, first seed; what is forgotten "
    "is their color. Retraining goes without this client.",
    tracked="unbiased",
    num_classes=2,
  ),
  "sensitive": Scenario(
    tasks.sensitive,
    metrics.sensitive,
    metrics.SENSITIVE,
    rates={"ferrari": 1e-3, "finetune": 1e-4},
    compared=("test_accuracy", "flip_rate"),
    selection="The records of the first client, first seed; what is forgotten "
    "is one column. The retrained model is trained by all clients and never "
    "sees that column.",
    tracked="clean",
    num_classes=2,
    options={"sensitivity_fraction": 0.05},
  ),
}
