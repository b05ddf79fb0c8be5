import hashlib
import hmac

import numpy as np
import pytest

from junlearn import tree
from junlearn.certify import fingerprint

SALT = bytes(range(32))
OTHER = bytes(32)


def test_is_a_keyed_hash():
  expected = hmac.new(SALT, b"record\x0012", hashlib.sha256).hexdigest()
  assert fingerprint.record(12, salt=SALT) == expected
  assert fingerprint.record(np.int32(12), salt=SALT) == expected


def test_tells_ids_salts_and_kinds_apart():
  found = [
    fingerprint.record(1, salt=SALT),
    fingerprint.record("1", salt=SALT),
    fingerprint.record("'1'", salt=SALT),
    fingerprint.record(1, salt=OTHER),
    fingerprint.seed(1, salt=SALT),
    fingerprint.record_set([1], salt=SALT),
  ]
  assert len(set(found)) == len(found)


def test_the_order_of_ids_is_not_told():
  ids = np.array([5, 3, 900, 12])
  records = fingerprint.records(ids, salt=SALT)
  assert records == fingerprint.records(ids[::-1], salt=SALT)
  assert set(records) == {fingerprint.record(i, salt=SALT) for i in ids}
  assert list(records) == sorted(records)
  first, second = ids, ids[::-1]
  assert fingerprint.record_set(first, salt=SALT) == fingerprint.record_set(
    second, salt=SALT
  )
  assert fingerprint.record_set(ids[:3], salt=SALT) != fingerprint.record_set(
    ids, salt=SALT
  )


def test_params_are_not_their_plain_digest():
  params = {"w": np.ones(3)}
  found = fingerprint.params(params, salt=SALT)
  assert found != tree.digest(params)
  assert found == fingerprint.params({"w": np.ones(3)}, salt=SALT)
  assert found != fingerprint.params({"w": np.zeros(3)}, salt=SALT)


def test_salts_differ():
  assert len({fingerprint.new_salt() for _ in range(8)}) == 8


@pytest.mark.parametrize("record", [1.0, None, True, (1,)])
def test_an_id_is_an_integer_or_a_string(record):
  with pytest.raises(ValueError, match="record_id is"):
    fingerprint.record(record, salt=SALT)


def test_a_short_salt_is_refused():
  with pytest.raises(ValueError, match="salt has 3 bytes"):
    fingerprint.seed(0, salt=b"abc")
