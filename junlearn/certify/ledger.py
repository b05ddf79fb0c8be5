"""An append-only list of releases, each line chained to the one before.

One JSON object a line; each holds the hash of its own content and the hash of
the line before it. A line that was edited, removed or moved is found by
`read`. Two changes cannot be found from the file alone, since it has no
signature: the newest lines cut off, and everything written anew from some line
on. For these, keep `head` of the ledger elsewhere.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from junlearn import files
from junlearn.certify import strict
from junlearn.certify.accountant import Account, BudgetError

_GENESIS = "0" * 64
# Two computations of one formula, in double precision and on any machine.
_TOLERANCE = 1e-7


class LedgerError(ValueError):
  """The ledger is not what was written."""


class Entry(NamedTuple):
  """One line.

  Attributes:
    index: 0 for the first.
    request: name of the request, given once.
    records: `fingerprint.records` of those deleted.
    params_before: `fingerprint.params` before the deletion.
    params_after: `tree.digest` of the released params.
    epsilon: of the budget for all releases.
    delta: of the budget for all releases.
    distance: what the noise of this release hides; 0 for a retrained model.
    sigma: its standard deviation.
    spent: `Account.spent` after this release.
    left: `Account.left` after this release.
    certificate: `certificate.sha256`; None for a retrained model.
    previous: the hash of the line before.
    hash: of this line, without itself.
  """

  index: int
  request: str
  records: tuple[str, ...]
  params_before: str
  params_after: str
  epsilon: float
  delta: float
  distance: float
  sigma: float
  spent: float
  left: float
  certificate: str | None
  previous: str
  hash: str


def append(
  path: str | Path,
  *,
  request: str,
  records: Sequence[str],
  params_before: str,
  params_after: str,
  epsilon: float,
  delta: float,
  distance: float,
  sigma: float,
  certificate: str | None,
) -> Entry:
  """Adds a line, the file being replaced as a whole; see `Entry`.

  One writer at a time. A release that does not fit is refused here, so it is
  entered before it is published.

  Returns:
    The line written; its `hash` is the ledger's new head.

  Raises:
    BudgetError: if the release does not fit the budget.
    LedgerError: if the ledger so far is not what was written.
    ValueError: if the request is there already, or was under another budget.
    OSError: if the file cannot be written.
  """
  entries = read(path) if Path(path).exists() else ()
  if any(entry.request == request for entry in entries):
    raise ValueError(
      f"request is {request!r}, which the ledger has; each is entered once."
    )
  if entries and (entries[0].epsilon, entries[0].delta) != (epsilon, delta):
    raise ValueError(
      f"the budget is epsilon {epsilon}, delta {delta}; that of the ledger is "
      f"{entries[0].epsilon}, {entries[0].delta} and stays."
    )
  account = _account(entries, epsilon, delta).add(distance, sigma)
  entry = Entry(
    index=len(entries),
    request=request,
    records=tuple(records),
    params_before=params_before,
    params_after=params_after,
    epsilon=epsilon,
    delta=delta,
    distance=distance,
    sigma=sigma,
    spent=account.spent,
    left=account.left,
    certificate=certificate,
    previous=entries[-1].hash if entries else _GENESIS,
    hash="",
  )
  entry = entry._replace(hash=_hash(entry))
  lines = [strict.encode(each) + "\n" for each in (*entries, entry)]
  files.replace(path, "".join(lines).encode())
  return entry


def read(path: str | Path, *, head: str | None = None) -> tuple[Entry, ...]:
  """The lines, all of which were checked.

  Args:
    path: of the ledger.
    head: `hash` of a line that must be the last, from where it was kept.

  Raises:
    LedgerError: naming the first line that was edited, removed, moved or cut
      short.
    OSError: if the file cannot be read.
  """
  return parse(Path(path).read_bytes(), head=head)


def parse(content: bytes, *, head: str | None = None) -> tuple[Entry, ...]:
  """As `read`, of the file's content."""
  pieces = content.split(b"\n")
  if pieces.pop():
    raise LedgerError(f"line {len(pieces) + 1} is cut short.")
  parsed = [_parse(number, line) for number, line in enumerate(pieces, 1)]
  entries: list[Entry] = []
  spent = None
  for number, entry in enumerate(parsed, 1):
    if isinstance(entry, LedgerError):
      raise entry
    _check_order(number, entry, parsed)
    previous = entries[-1].hash if entries else _GENESIS
    if entry.previous != previous:
      raise LedgerError(
        f"line {number} does not follow the line before it, which was written "
        "anew."
      )
    spent = _spend(number, entry, spent or Account(entry.epsilon, entry.delta))
    entries.append(entry)
  if head is not None and (not entries or entries[-1].hash != head):
    raise LedgerError(
      f"line {len(entries)} is not the head {head}: lines were removed or "
      "written anew."
    )
  return tuple(entries)


def account(entries: Sequence[Entry]) -> Account:
  """The budget of a ledger and what is spent of it.

  Raises:
    ValueError: if there are no entries, hence no budget.
  """
  if not entries:
    raise ValueError("entries is empty; a ledger's budget is in its lines.")
  return _account(entries, entries[0].epsilon, entries[0].delta)


def _account(entries, epsilon, delta):
  spent = Account(epsilon, delta)
  for entry in entries:
    spent = spent.add(entry.distance, entry.sigma)
  return spent


def _hash(entry):
  text = strict.encode(entry._replace(hash=""))
  return hashlib.sha256(text.encode()).hexdigest()


def _parse(number, line):
  """The entry of a line, or the error to raise when it is reached."""
  try:
    entry = strict.decode(Entry, line.decode())
  except ValueError as error:
    return LedgerError(f"line {number} was edited: {error}.")
  if _hash(entry) != entry.hash:
    return LedgerError(f"line {number} was edited: its hash is another.")
  return entry


def _check_order(number, entry, parsed):
  expected = number - 1
  if entry.index == expected:
    return
  later = [e.index for e in parsed[number:] if isinstance(e, Entry)]
  moved = entry.index < expected or expected in later
  raise LedgerError(
    f"line {number} was moved: it was line {entry.index + 1}."
    if moved
    else f"line {number} was removed: what stands there was line "
    f"{entry.index + 1}."
  )


def _spend(number, entry, before):
  """The account after a line; its own numbers must agree."""
  try:
    after = before.add(entry.distance, entry.sigma)
  except (ValueError, BudgetError) as error:
    raise LedgerError(f"line {number} has no place: {error}") from error
  for name in ("epsilon", "delta", "spent", "left"):
    stored, computed = getattr(entry, name), getattr(after, name)
    if not math.isclose(
      stored, computed, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE
    ):
      raise LedgerError(
        f"line {number}: {name} is {stored!r}; computed again it is "
        f"{computed!r}."
      )
  return after
