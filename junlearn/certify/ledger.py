"""An append-only list of releases, each line chained to the one before.

One JSON object a line; each holds the hash of the line before it, the hash of
its own content, and the signature of that hash (`signing`). A line that was
edited, removed or moved is found by `read`, also where all hashes after it were
computed again. What cannot be found from the file alone:

- the newest lines were cut off: keep the head, the last line's hash, elsewhere;
- everything was signed anew with another key: keep the public key, or the head,
  elsewhere;
- who holds the private key wrote everything anew: only the head tells.
"""

import contextlib
import fcntl
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junlearn.certify import signing, strict
from junlearn.certify.accountant import Account, BudgetError
from junlearn.storage import files

_GENESIS = "0" * 64
# Relative differences of two computations, on any machine: of `spent`, by a few
# operations; of the square of a budget's `mu`, by SciPy's special functions.
_SPENT, _BUDGET = 1e-12, 1e-9


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
    distance: what the noise of this release hides, above 0: every release is
      charged.
    sigma: its standard deviation.
    spent: `Account.spent` after this release.
    left: `Account.left` after this release.
    certificate: `certificate.sha256`.
    signer: `signing.public_key` of who wrote the line, one for all lines.
    previous: the hash of the line before.
    hash: of this line, all but `hash` and `signature`.
    signature: of `hash`, by the signer.
  """

  index: int  # type: ignore[assignment]  # a name of tuples, too
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
  certificate: str
  signer: str
  previous: str
  hash: str
  signature: str


def append(
  path: str | Path,
  *,
  key: Ed25519PrivateKey,
  request: str,
  records: Sequence[str],
  params_before: str,
  params_after: str,
  epsilon: float,
  delta: float,
  distance: float,
  sigma: float,
  certificate: str,
) -> Entry:
  """Adds a line, the file being replaced as a whole; see `Entry`.

  Writers wait for each other, by a lock on `PATH.lock`, so that two cannot
  spend the same part of a budget. A release that does not fit is refused here,
  so it is entered before it is published. The key is one for all lines.

  Returns:
    The line written; its `hash` is the ledger's new head.

  Raises:
    BudgetError: if the release does not fit the budget.
    LedgerError: if the ledger so far is not what was written, or another key
      signed it.
    ValueError: if an argument is not what `Entry` says, or if the request is
      there already, or was under another budget.
    OSError: if the file cannot be written.
  """
  with _alone(Path(path)):
    signer = signing.public_key(key)
    there = Path(path).exists()
    entries = read(path, public_key=signer) if there else ()
    if any(entry.request == request for entry in entries):
      raise ValueError(
        f"request is {request!r}, which the ledger has; each is entered once."
      )
    if entries and (entries[0].epsilon, entries[0].delta) != (epsilon, delta):
      raise ValueError(
        f"the budget is epsilon {epsilon}, delta {delta}; that of the ledger "
        f"is {entries[0].epsilon}, {entries[0].delta} and stays."
      )
    charged = _charge(_account(entries, epsilon, delta), distance, sigma)
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
      spent=charged.spent,
      left=charged.left,
      certificate=certificate,
      signer=signer,
      previous=entries[-1].hash if entries else _GENESIS,
      hash="",
      signature="",
    )
    strict.decode(Entry, strict.encode(entry))  # what is written can be read
    digest = _hash(entry)
    entry = entry._replace(
      hash=digest, signature=signing.sign(key, digest.encode())
    )
    lines = [strict.encode(each) + "\n" for each in (*entries, entry)]
    files.replace(path, "".join(lines).encode())
  return entry


def read(
  path: str | Path, *, head: str | None = None, public_key: str | None = None
) -> tuple[Entry, ...]:
  """The lines, all of which were checked.

  Args:
    path: of the ledger.
    head: `hash` of a line that must be the last, from where it was kept.
    public_key: that must have signed all lines, from where it was kept. Without
      it and `head`, a ledger that was signed anew with another key is not
      noticed.

  Raises:
    LedgerError: naming the first line that was edited, removed, moved, cut
      short or signed by another.
    OSError: if the file cannot be read.
  """
  return parse(Path(path).read_bytes(), head=head, public_key=public_key)


def parse(
  content: bytes, *, head: str | None = None, public_key: str | None = None
) -> tuple[Entry, ...]:
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
    signer = parsed[0].signer if public_key is None else public_key
    if entry.signer != signer:
      raise LedgerError(
        f"line {number} was signed by {entry.signer}; the signer must be "
        f"{signer}."
      )
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


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
  """While no other thread or process is in here with the same ledger."""
  path.parent.mkdir(parents=True, exist_ok=True)
  # A file of its own, as the ledger is replaced, and never removed, since
  # another may wait for it.
  with path.with_name(f"{path.name}.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
    yield


def _account(entries, epsilon, delta):
  spent = Account(epsilon, delta)
  for entry in entries:
    spent = spent.add(entry.distance, entry.sigma)
  return spent


def _charge(account, distance, sigma):
  if distance == 0:
    raise ValueError(
      f"distance is {distance}; it must be above 0: every release is charged."
    )
  return account.add(distance, sigma)


def _hash(entry):
  text = strict.encode(entry._replace(hash="", signature=""))
  return hashlib.sha256(text.encode()).hexdigest()


def _parse(number, line):
  """The entry of a line, or the error to raise when it is reached."""
  try:
    entry = strict.decode(Entry, line.decode())
  except ValueError as error:
    return LedgerError(f"line {number} was edited: {error}.")
  if _hash(entry) != entry.hash:
    return LedgerError(f"line {number} was edited: its hash is another.")
  if not signing.verify(entry.signer, entry.hash.encode(), entry.signature):
    return LedgerError(
      f"line {number} was edited: its signature is not by {entry.signer}."
    )
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
    after = _charge(before, entry.distance, entry.sigma)
  except (ValueError, BudgetError) as error:
    raise LedgerError(f"line {number} has no place: {error}") from error
  whole = Account(before.epsilon, before.delta).left
  for name, tolerance in (
    ("epsilon", 0.0),
    ("delta", 0.0),
    ("spent", _SPENT * after.spent),
    # The root of a difference, whose error is relative to `whole^2`: where
    # little is left, it is larger in the root.
    ("left", whole * _BUDGET / max(after.left / whole, math.sqrt(_BUDGET))),
  ):
    stored, computed = getattr(entry, name), getattr(after, name)
    if not abs(stored - computed) <= tolerance:
      raise LedgerError(
        f"line {number}: {name} is {stored!r}; computed again it is "
        f"{computed!r}."
      )
  return after
