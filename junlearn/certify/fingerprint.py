"""What records, seeds and states are called in certificates and ledgers.

    HMAC-SHA256(salt, what)

A plain hash of a record's id names it: ids are few, and all can be hashed.
Keyed with a salt, a fingerprint says nothing to those who lack the salt, and
whoever has it can show that a record, a seed or a state is the one meant. The
salt is kept apart from what is published.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np

from junlearn import tree

_BYTES = 32


def new_salt() -> bytes:
  """32 bytes of the operating system's entropy."""
  return secrets.token_bytes(_BYTES)


def record(record_id: int | str, *, salt: bytes) -> str:
  """Of one record, by its id.

  Raises:
    ValueError: if the id is neither an integer nor a string, or the salt is
      not of 32 bytes.
  """
  if isinstance(record_id, np.generic):
    record_id = record_id.item()
  if isinstance(record_id, bool) or not isinstance(record_id, int | str):
    raise ValueError(
      f"record_id is {record_id!r}; it must be an integer or a string."
    )
  return _keyed(salt, "record", repr(record_id))


def records(record_ids: Iterable[int | str], *, salt: bytes) -> tuple[str, ...]:
  """Of each record, sorted, so that the order of the ids is not told.

  Raises:
    ValueError: as `record` does.
  """
  return tuple(sorted(record(each, salt=salt) for each in record_ids))


def record_set(record_ids: Iterable[int | str], *, salt: bytes) -> str:
  """Of a set of records as a whole, whatever their order.

  Raises:
    ValueError: as `record` does.
  """
  return _keyed(salt, "records", *records(record_ids, salt=salt))


def seed(value: int, *, salt: bytes) -> str:
  """Of a seed. That of the noise has none: it is kept nowhere.

  Raises:
    ValueError: if the salt is not of 32 bytes.
  """
  return _keyed(salt, "seed", str(int(value)))


def params(value: Any, *, salt: bytes) -> str:
  """Of params without noise, whose plain digest would be a test for the data.

  Raises:
    ValueError: if the salt is not of 32 bytes.
  """
  return _keyed(salt, "params", tree.digest(value))


def _keyed(salt: bytes, *parts: str) -> str:
  if len(salt) != _BYTES:
    raise ValueError(f"salt has {len(salt)} bytes; it must have {_BYTES}.")
  return hmac.new(salt, "\0".join(parts).encode(), hashlib.sha256).hexdigest()
