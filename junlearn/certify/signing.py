"""Signatures of ledgers: Ed25519 (RFC 8032), by the package `cryptography`.

    signature = Ed25519(private key, "junlearn ledger v1" 0 message)

A signature proves that who holds the private key wrote the message, and that
it was not changed since. It proves neither when nor that what it says is true,
and nothing to those who take the public key from where the message is: a key
that travels with a folder can be replaced together with all signatures. Keep
the public key, or the head of the ledger, elsewhere.
"""

import re

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
  Ed25519PrivateKey,
  Ed25519PublicKey,
)

# What is signed here is no signature of anything else made with the same key.
_DOMAIN = b"junlearn ledger v1\0"
_PUBLIC_KEY = re.compile("[0-9a-f]{64}")
_SIGNATURE = re.compile("[0-9a-f]{128}")


def new_key() -> bytes:
  """A private key of the operating system's entropy, as PEM.

  It is PKCS #8 without a passphrase: who reads the file can sign.
  """
  return Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )


def load_key(pem: bytes) -> Ed25519PrivateKey:
  """The private key that `new_key`, or another program, wrote as PEM.

  Raises:
    ValueError: if it is anything else, or has a passphrase.
  """
  try:
    key = serialization.load_pem_private_key(pem, password=None)
  except (ValueError, TypeError, UnsupportedAlgorithm):
    key = None
  if not isinstance(key, Ed25519PrivateKey):
    # The value is not shown: it may be a key.
    raise ValueError(
      "pem is something else; it must be an Ed25519 private key, as PEM of "
      "PKCS #8 without a passphrase."
    )
  return key


def public_key(key: Ed25519PrivateKey) -> str:
  """The public key, 32 bytes as 64 hexadecimal digits: the signer's name."""
  return key.public_key().public_bytes_raw().hex()


def sign(key: Ed25519PrivateKey, message: bytes) -> str:
  """The signature, 64 bytes as 128 hexadecimal digits; always the same."""
  return key.sign(_DOMAIN + message).hex()


def verify(public_key: str, message: bytes, signature: str) -> bool:
  """Whether `sign` made a signature of the message.

  Args:
    public_key: as `public_key` writes it, digits in lower case.
    message: any bytes.
    signature: as `sign` writes it, digits in lower case.

  Returns:
    False for everything that is not of this form, too.

  **Guarantees**: who can make a signature that verifies has the private key,
  as far as the public key is one of `public_key`. Ed25519 has a few more, which
  verify anything.
  """
  if not (
    _matches(_PUBLIC_KEY, public_key)
    and _matches(_SIGNATURE, signature)
    and isinstance(message, bytes)
  ):
    return False
  try:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(
      bytes.fromhex(signature), _DOMAIN + message
    )
  except (InvalidSignature, ValueError):
    return False
  return True


def _matches(pattern, text):
  return isinstance(text, str) and pattern.fullmatch(text) is not None
