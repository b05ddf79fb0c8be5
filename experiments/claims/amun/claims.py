"""Claims 1 to 5 of AMUN at small scale (see `junlearn.methods.amun`).

A small net that overfits a few thousand images; 10 % are forgotten. Every
method's learning rate is chosen on seeds of its own, from the same grid, by
the average gap to retraining: an oracle, and the same one for all.
"""

from collections.abc import Iterator

from absl import flags

from experiments.claims.amun import comparison, locality, nearest
from experiments.classification.recipe import Recipe
from experiments.classification.study import Study
from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.run.workdir import Workdir
from junlearn.data import load

_DATASETS = flags.DEFINE_list(
  "datasets", ["fashion_mnist", "cifar10"], "amun: image sets."
)
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", 5000, "amun: training images.", lower_bound=100
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", 1500, "amun: test images.", lower_bound=50
)
_EPOCHS = flags.DEFINE_integer(
  "epochs", 30, "amun: epochs of training from scratch.", lower_bound=1
)
_UNLEARN_EPOCHS = flags.DEFINE_integer(
  "unlearn_epochs", 10, "amun: budget of each method.", lower_bound=1
)


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """For each data set, the claims and the lines of the table behind them."""
  recipe = Recipe(epochs=_EPOCHS.value, unlearn_epochs=_UNLEARN_EPOCHS.value)
  for name in _DATASETS.value:
    dataset = load(
      name,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      num_train=_NUM_TRAIN.value,
      num_test=_NUM_TEST.value,
    )
    study = Study(dataset, recipe)
    total = comparison.steps(study, seeds) + locality.steps(study, seeds)
    with Session(workdir, total, folder=f"amun/{name}") as study.session:
      found = comparison.compare(study, seeds)
      measured = [
        *nearest.claims(study, found),
        *locality.claims(study, found),
        *comparison.claims(found),
      ]
    claims = [Claim("amun", number, name, *rest) for number, *rest in measured]
    yield claims, comparison.table(name, found)
