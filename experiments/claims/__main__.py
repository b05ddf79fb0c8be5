"""Runs the claims of the systems named, or of all.

    python -m experiments.claims [SYSTEM ...] --workdir=DIR

Prints a line a claim, writes `claims.json` and `claims.md`, and exits non-zero
when a claim fails. A run that was stopped continues with the same command.
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from experiments import harness
from experiments.claims import amun
from experiments.claims.claim import Claim
from experiments.image_study import Recipe
from experiments.workdir import Workdir

_SYSTEMS = {"amun": amun.run}

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/claims", "Folder of the run; continued if begun."
)
_DATASETS = flags.DEFINE_list(
  "datasets", ["fashion_mnist", "cifar10"], "Image sets of the image claims."
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 5, "Seeds behind each number.", lower_bound=2
)
_NUM_TRAIN = flags.DEFINE_integer(
  "num_train", 5000, "Training images.", lower_bound=100
)
_NUM_TEST = flags.DEFINE_integer(
  "num_test", 1500, "Test images.", lower_bound=50
)
_EPOCHS = flags.DEFINE_integer(
  "epochs", 30, "Epochs of training from scratch.", lower_bound=1
)
_UNLEARN_EPOCHS = flags.DEFINE_integer(
  "unlearn_epochs", 10, "Budget of each method, in epochs.", lower_bound=1
)


def main(systems: Sequence[str]) -> None:
  """Runs the claims and exits 1 if one fails."""
  systems = list(systems or _SYSTEMS)
  harness.choose("SYSTEM", systems, _SYSTEMS)
  workdir = Workdir(_WORKDIR.value, {**harness.own_flags(), "systems": systems})
  settings = amun.Settings(
    datasets=tuple(_DATASETS.value),
    seeds=_SEEDS.value,
    num_train=_NUM_TRAIN.value,
    num_test=_NUM_TEST.value,
    recipe=Recipe(epochs=_EPOCHS.value, unlearn_epochs=_UNLEARN_EPOCHS.value),
    data_dir=flags.FLAGS.data_dir,
    manual_dir=flags.FLAGS.manual_dir,
  )
  claims: list[Claim] = []
  tables: list[str] = []
  for system in systems:
    for found, table in _SYSTEMS[system](workdir, settings):
      claims += found
      tables += table
      for claim in found:
        print(claim, flush=True)
  records = [claim.record() for claim in claims]
  workdir.write("claims.json", json.dumps(records, indent=2) + "\n")
  workdir.write("claims.md", "\n".join(_page(workdir.config, claims, tables)))
  held = sum(claim.passed for claim in claims)
  print(f"{held} of {len(claims)} claims hold")
  if held < len(claims):
    sys.exit(1)


def _page(config, claims: Sequence[Claim], tables: Sequence[str]) -> list[str]:
  device = config["device"]
  rows = [
    f"| {claim.system} {claim.number} | {claim.data} | {claim.quantity} "
    f"| {claim.comparison} {claim.threshold:.4g} | {claim.measured:.4g} "
    f"| {'passed' if claim.passed else '**failed**'} |"
    for claim in claims
  ]
  return [
    "# Claims",
    "",
    f"`{config['command']}`, commit {config['commit']}, "
    f"{device['count']} x {device['kind']} ({device['cores']} cores), "
    f"jax {config['versions']['jax']}.",
    "",
    "| Claim | Data | Quantity | Demanded | Measured | |",
    "|---|---|---|---|---|---|",
    *rows,
    "",
    "Below: mean ± standard deviation over seeds, in percent; learning rates "
    "chosen on other seeds by the average gap.",
    "",
    *tables,
  ]


if __name__ == "__main__":
  harness.start(main)
