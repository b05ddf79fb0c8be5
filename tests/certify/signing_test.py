"""Against RFC 8032: its first vector, its algorithm in Python's integers."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa

from junlearn.certify import signing

SEED = bytes.fromhex(
  "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
)
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
OF_NOTHING = (
  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a3"
  "3bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)
DOMAIN = b"junlearn ledger v1\0"

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE = (
  15112221349535400772501151409588531511454012693041857206046113283949847762202,
  4 * pow(5, -1, P) % P,
)


def add(a, b):
  cross = D * a[0] * b[0] * a[1] * b[1]
  x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + cross, -1, P)
  y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - cross, -1, P)
  return x % P, y % P


def times(k, point=BASE):
  """k times the point, as its 32 bytes."""
  total = (0, 1)
  while k:
    total = add(total, point) if k & 1 else total
    point, k = add(point, point), k >> 1
  return (total[1] | (total[0] & 1) << 255).to_bytes(32, "little")


def reference(seed, message):
  """The public key and the signature, RFC 8032 sections 5.1.5 and 5.1.6."""

  def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")

  digest = hashlib.sha512(seed).digest()
  secret = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
  public = times(secret)
  r = number(digest[32:], message) % ORDER
  s = (r + number(times(r), public, message) * secret) % ORDER
  return public.hex(), (times(r) + s.to_bytes(32, "little")).hex()


def pem(seed):
  """PKCS #8 by hand, RFC 8410 section 7."""
  der = bytes.fromhex("302e020100300506032b657004220420") + seed
  text = base64.b64encode(der)
  return b"-----BEGIN PRIVATE KEY-----\n%b\n-----END PRIVATE KEY-----\n" % text


def written(key, encryption=None):
  return key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    encryption or serialization.NoEncryption(),
  )


KEY = signing.load_key(pem(SEED))


def test_the_reference_is_that_of_the_rfc():
  assert reference(SEED, b"") == (PUBLIC, OF_NOTHING)


@pytest.mark.parametrize("message", [b"", b"a", bytes(range(256))])
def test_signs_as_the_rfc_says(message):
  public, signature = reference(SEED, DOMAIN + message)
  assert signing.public_key(KEY) == public
  assert signing.sign(KEY, message) == signature
  assert signing.verify(public, message, signature)


def test_what_was_signed_elsewhere_is_not_accepted():
  """The key may sign other things; they are no lines of a ledger."""
  for signed in (b"", b"message", DOMAIN[:-1] + b"message"):
    _, signature = reference(SEED, signed)
    assert not signing.verify(PUBLIC, b"message", signature)
    assert not signing.verify(PUBLIC, signed, signature)


def test_every_bit_counts():
  message = b"some message"
  signature = signing.sign(KEY, message)

  def flips(content):
    for bit in range(8 * len(content)):
      yield (int.from_bytes(content) ^ 1 << bit).to_bytes(len(content))

  for other in flips(message):
    assert not signing.verify(PUBLIC, other, signature)
  for other in flips(bytes.fromhex(signature)):
    assert not signing.verify(PUBLIC, message, other.hex())
  for other in flips(bytes.fromhex(PUBLIC)):
    assert not signing.verify(other.hex(), message, signature)


def test_a_signature_has_one_form():
  """The same signature with its number plus the group's order, and others."""
  signature = signing.sign(KEY, b"")
  s = int.from_bytes(bytes.fromhex(signature[64:]), "little")
  for other in (
    signature[:64] + (s + ORDER).to_bytes(32, "little").hex(),
    signature.upper(),
    f"{signature}\n",
    f" {signature}",
    f"{signature} ",
    f"{signature[:2]} {signature[2:]}",
  ):
    assert not signing.verify(PUBLIC, b"", other)


@pytest.mark.parametrize(
  "value",
  [
    None,
    1,
    b"",
    "",
    "0",
    "zz",
    "\ud800",
    "é" * 64,
    "f" * 64,
    "f" * 128,
    [],
    {},
  ],
)
def test_malformed_input_is_no_signature(value):
  signature = signing.sign(KEY, b"")
  assert not signing.verify(value, b"", signature)
  assert not signing.verify(PUBLIC, b"", value)
  if value != b"":
    assert not signing.verify(PUBLIC, value, signature)


def test_new_keys_differ_and_load():
  keys = [signing.new_key() for _ in range(8)]
  names = {signing.public_key(signing.load_key(key)) for key in keys}
  assert len(names) == 8
  assert all(key.startswith(b"-----BEGIN PRIVATE KEY-----") for key in keys)


@pytest.mark.parametrize(
  "content",
  [
    None,
    "text",
    b"",
    b"garbage",
    SEED,
    pem(SEED)[:-40],
    pem(SEED[1:]),
    pem(SEED).replace(b"MC4CAQAwBQYDK2Vw", b"MC4CAQAwBQYDK2V/"),
    written(ed448.Ed448PrivateKey.generate()),
    written(rsa.generate_private_key(65537, 2048)),
    written(
      ed25519.Ed25519PrivateKey.generate(),
      serialization.BestAvailableEncryption(b"passphrase"),
    ),
    KEY.public_key().public_bytes(
      serialization.Encoding.PEM,
      serialization.PublicFormat.SubjectPublicKeyInfo,
    ),
  ],
)
def test_other_keys_are_refused(content):
  with pytest.raises(ValueError, match="must be an Ed25519 private key"):
    signing.load_key(content)
