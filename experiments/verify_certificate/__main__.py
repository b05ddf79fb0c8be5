"""Checks what a certified run left in its folder, without trusting it.

    python -m experiments.verify_certificate DIR --public_key=KEY --head=HASH

Which releases there must be follows from `config.json`. Each is measured again
from the data and the params without noise: its certificate is made anew and
compared field by field, its assumptions are checked, its noise is put to the
test (`certify.scrutiny`), its line in the ledger must be signed, and a program
that shares no code with the library computes the figures a second time
(`independent_check`). Prints a line for each disagreement and exits non-zero if
there is one.

Everything in DIR can be made anew by whoever has its signing key, with other
promises: that, only the head tells, kept elsewhere. The public key, kept
elsewhere, tells what others made. The report, `results.jsonl`, `evidence` and
`private/requests.json` are not read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.release import register
from experiments.run import program
from experiments.verify_certificate import checks
from junlearn.certify import ledger

_LONGEST = 1000  # characters of a line that is printed

_HEAD = flags.DEFINE_string(
  "head", None, "Hash of the ledger's last line, from where it was kept."
)
_PUBLIC_KEY = flags.DEFINE_string(
  "public_key", None, "Key that must have signed the ledger, 64 hex digits."
)


def main(arguments: Sequence[str]) -> None:
  """Checks one folder and exits 1 if something does not agree."""
  if len(arguments) != 1:
    raise ValueError(
      f"{len(arguments)} folders were given; name the folder of one run."
    )
  folder = Path(arguments[0])
  found = list(
    checks.problems(folder, head=_HEAD.value, public_key=_PUBLIC_KEY.value)
  )
  for problem in found:
    print(_printable(problem))
  if found:
    sys.exit(1)
  entries = ledger.read(folder / register.LEDGER)
  last = entries[-1]
  print(
    f"{folder}: all agrees on {len(entries)} releases at epsilon "
    f"{last.epsilon:g} and delta {last.delta:g} together; the head of the "
    f"ledger is {last.hash}, signed by {last.signer}. Reports, rows, evidence "
    "and the list of requests were not read."
  )


def _printable(problem: str) -> str:
  """In one line: names and values are the folder's, and may be anything."""
  line = "".join(c if c.isprintable() else "?" for c in problem)
  return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


if __name__ == "__main__":
  program.start(main)
