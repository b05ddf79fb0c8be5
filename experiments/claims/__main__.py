"""Runs the claims of the systems named, or of all.

    python -m experiments.claims [SYSTEM ...] --workdir=DIR

Prints a line a claim, writes `claims.json` and `claims.md`, and exits non-zero
when a claim fails. A run that was stopped continues with the same command.
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from experiments.claims.amun import claims as amun
from experiments.claims.dfl_certified import claims as dfl_certified
from experiments.claims.ferrari import claims as ferrari
from experiments.claims.llm_baselines import claims as llm_baselines
from experiments.claims.lune import claims as lune
from experiments.claims.tabular import claims as tabular
from experiments.run import program, tables
from experiments.run.claim import Claim
from experiments.run.workdir import Workdir

# Each module has `run(workdir, seeds)` and its own flags.
_SYSTEMS = {
  "amun": amun,
  "dfl_certified": dfl_certified,
  "ferrari": ferrari,
  "llm_baselines": llm_baselines,
  "lune": lune,
  "tabular": tabular,
}

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/claims", "Folder of the run; continued if begun."
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 5, "Seeds behind each number.", lower_bound=2
)

flags.adopt_module_key_flags(program)
for _system in _SYSTEMS.values():
  flags.adopt_module_key_flags(_system)


def main(systems: Sequence[str]) -> None:
  """Runs the claims and exits 1 if one fails."""
  systems = list(systems or _SYSTEMS)
  program.choose("SYSTEM", systems, _SYSTEMS)
  workdir = Workdir(_WORKDIR.value, {**program.own_flags(), "systems": systems})
  claims: list[Claim] = []
  lines: list[str] = []
  for system in systems:
    for found, table in _SYSTEMS[system].run(workdir, _SEEDS.value):
      claims += found
      lines += table
      for claim in found:
        print(claim, flush=True)
  records = [claim.record() for claim in claims]
  workdir.write("claims.json", json.dumps(records, indent=2) + "\n")
  workdir.write("claims.md", "\n".join(_page(workdir.config, claims, lines)))
  held = sum(claim.passed for claim in claims)
  print(f"{held} of {len(claims)} claims hold")
  if held < len(claims):
    sys.exit(1)


def _page(config, claims: Sequence[Claim], lines: Sequence[str]) -> list[str]:
  device = config["device"]
  rows = [
    tables.row(
      [
        f"{claim.system} {claim.number}",
        claim.data,
        claim.quantity,
        f"{claim.comparison} {claim.threshold:.4g}",
        f"{claim.measured:.4g}",
        tables.verdict(claim.passed),
      ]
    )
    for claim in claims
  ]
  return [
    "# Claims",
    "",
    f"`{config['command']}`, commit {config['commit']}, "
    f"{device['count']} x {device['kind']} ({device['cores']} cores), "
    f"jax {config['versions']['jax']}.",
    "",
    *tables.header(["Claim", "Data", "Quantity", "Demanded", "Measured", ""]),
    *rows,
    "",
    *lines,
  ]


if __name__ == "__main__":
  program.start(main)
