"""Makes the hashes of an edited run agree again, as a forger does.

certificate: hashes of config.json and of the released params
line:        hashes of both, of the line before, and of itself
signature:   by the run's own key, for a forger who has it
"""

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from experiments.bench.forgeries.folder import (
  CERTIFICATE,
  PARAMS,
  parsed,
  read_json,
  write_json,
)
from experiments.release import register
from junlearn import tree
from junlearn.certify import signing
from junlearn.certify.accountant import Account


def rewrite(folder: Path, key: Ed25519PrivateKey | None) -> None:
  """Rewrites certificates and ledger; what cannot be read stays as it is.

  Args:
    folder: of the run.
    key: that signs the lines; None leaves the old signatures.
  """
  config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
  for path in (folder / "releases").rglob(CERTIFICATE):
    _certificate(path, config)
  path = folder / register.LEDGER
  if path.exists():
    path.write_text(_ledger(folder, path.read_bytes(), key))


def _certificate(path, config):
  stored = read_json(path)
  if stored is None or not isinstance(stored.get("hashes"), dict):
    return
  hashes, params = stored["hashes"], path.parent / PARAMS
  if "config" in hashes:
    hashes["config"] = config
  if "params_after" in hashes and params.exists():
    try:
      found = safetensors.load(params.read_bytes())
      hashes["params_after"] = tree.digest(found)
    except SafetensorError:
      pass
  write_json(path, stored)


def _ledger(folder, content, key):
  lines, previous, account = [], "0" * 64, None
  for index, text in enumerate(content.splitlines()):
    entry = parsed(text)
    if entry is None:
      lines.append(text.decode(errors="replace"))
      continue
    entry |= {"index": index, "previous": previous}
    if key is not None:
      entry["signer"] = signing.public_key(key)
    entry |= _certified(folder / "releases" / str(entry.get("request")))
    account = _spend(account, entry)
    bare = json.dumps({**entry, "hash": "", "signature": ""})
    previous = hashlib.sha256(bare.encode()).hexdigest()
    entry["hash"] = previous
    if key is not None:
      entry["signature"] = signing.sign(key, previous.encode())
    lines.append(json.dumps(entry))
  return "".join(f"{line}\n" for line in lines)


def _certified(folder):
  """What a line says of a certificate."""
  stored = read_json(folder / CERTIFICATE)
  if stored is None:
    return {}
  content = (folder / CERTIFICATE).read_bytes()
  found = {"certificate": hashlib.sha256(content).hexdigest()}
  hashes = stored.get("hashes")
  if isinstance(hashes, dict) and "params_after" in hashes:
    found["params_after"] = hashes["params_after"]
  return found


def _spend(account, entry):
  """Adds a line to the account and states it, as far as it fits."""
  try:
    account = account or Account(entry["epsilon"], entry["delta"])
    account = account.add(entry["distance"], entry["sigma"])
    entry |= {"spent": account.spent, "left": account.left}
  except (LookupError, TypeError, ValueError, ArithmeticError):
    pass
  return account
