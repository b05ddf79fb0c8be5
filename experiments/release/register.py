"""Certificates and the ledger of a run's releases: one account for all.

Below `releases`: `ledger.jsonl`, `public_key`, and of each release, in a folder
of its name, `params.safetensors` and `certificate.json`. The salt of their
fingerprints, the key that signs and the ids asked for lie in `private`; nothing
of the noise lies anywhere.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import numpy as safetensors

from experiments.release import requests
from experiments.release.names import Name
from experiments.release.terms import Terms
from experiments.run.workdir import Workdir
from junlearn import tree
from junlearn.certify import (
  Bound,
  certificate,
  describe,
  fingerprint,
  ledger,
  signing,
)
from junlearn.certify.accountant import Account
from junlearn.parallel import processes
from junlearn.transform import Request

LEDGER = "releases/ledger.jsonl"
PUBLIC_KEY = "releases/public_key"
SALT = "private/salt"
SIGNING_KEY = "private/signing_key.pem"


class Answer(NamedTuple):
  """One release, and what it was made of.

  Attributes:
    name: of the release.
    bound: that holds of `corrected`.
    request: that was answered.
    before: params before the request.
    corrected: params after it, without noise.
    released: params with noise.
    fallback: whether they were retrained.
  """

  name: Name
  bound: Bound
  request: Request
  before: Any
  corrected: Any
  released: Any
  fallback: bool


def certify(
  answer: Answer, terms: Terms, *, experiment: str, config: bytes, salt: bytes
) -> certificate.Certificate:
  """The certificate, everything in it measured and checked now.

  Raises:
    NotReachedError: if the bound is above the terms' distance.
    ValueError: if an assumption does not hold.
  """
  release = describe(
    answer.bound,
    answer.corrected,
    answer.request,
    epsilon=terms.each,
    delta=terms.delta,
    max_distance=terms.max_distance,
    fallback=answer.fallback,
  )
  return certificate.issue(
    release,
    answer.bound,
    answer.request,
    experiment=experiment,
    name=str(answer.name),
    before=answer.before,
    released=answer.released,
    salt=salt,
    config=config,
    seeds={"data": fingerprint.seed(answer.name.seed, salt=salt)},
  )


def line(
  issued: certificate.Certificate, answer: Answer, terms: Terms, salt: bytes
) -> dict[str, Any]:
  """What the ledger says of a release, as arguments of `ledger.append`."""
  forgotten = requests.present_ids(answer.request.forget)
  return {
    "request": str(answer.name),
    "records": fingerprint.records(forgotten, salt=salt),
    "params_before": issued.hashes.params_before,
    "params_after": issued.hashes.params_after,
    "epsilon": terms.epsilon,
    "delta": terms.delta,
    "distance": issued.distance,
    "sigma": issued.sigma,
  }


class Register:
  """The releases of a run, one account for all of them.

  Args:
    workdir: of the run.
    terms: of the releases.
    experiment: as `experiments.verify_certificate` knows it.

  Raises:
    ValueError: if the signing key is none, or another than that of the run.
    OSError: if it cannot be read.
  """

  def __init__(self, workdir: Workdir, terms: Terms, experiment: str):
    self._workdir, self._terms = workdir, terms
    self._experiment = experiment
    self.salt = _kept(workdir, SALT, fingerprint.new_salt)
    if terms.signing_key is None:
      pem = _kept(workdir, SIGNING_KEY, signing.new_key)
    else:
      given = Path(terms.signing_key)
      content = given.read_bytes() if processes.is_first() else None
      pem = processes.broadcast_bytes(content)
    self._key = signing.load_key(pem)
    signer = signing.public_key(self._key)
    known = _kept(workdir, PUBLIC_KEY, lambda: f"{signer}\n".encode())
    if known != f"{signer}\n".encode():
      raise ValueError(
        f"the signing key is that of {signer}; it must be the one of "
        f"{workdir / PUBLIC_KEY}, with which the ledger was begun."
      )

  def keep_requests(self, ids: Mapping[str, list[int | str]]) -> None:
    """Keeps what was asked for, for those who may know, by data set."""
    text = json.dumps(ids, indent=2) + "\n"
    self._workdir.write("private/requests.json", text)

  def account(self) -> Account:
    """The budget, and what the releases so far have spent of it."""
    content = self._workdir.read(LEDGER)
    if content is None:
      return Account(self._terms.epsilon, self._terms.delta)
    return ledger.account(ledger.parse(content))

  def fits(self, name: Name) -> None:
    """Refuses a release that would not fit, before any noise is drawn.

    Raises:
      BudgetError: if it would not.
    """
    if self._entry(name) is None:
      self.account().add(1.0, self._terms.sigma)

  def refuse_another(self, name: Name) -> None:
    """Refuses to draw noise for a release that the ledger has.

    Raises:
      ValueError: if it has.
    """
    if self._entry(name):
      raise ValueError(
        f"{name} is in the ledger, and its noise is drawn once: a second draw "
        "would spend more than its line says. Restore checkpoints/"
        f"{name}-released, or begin anew in another folder."
      )

  def enter(self, answer: Answer) -> None:
    """Writes certificate, line and params of a release, where they are not.

    The ledger has it before the params are there to be sent out.

    Raises:
      BudgetError: if the release does not fit the budget.
      ValueError: if the ledger has other params under this name.
    """
    folder = f"releases/{answer.name}"
    entry = self._entry(answer.name)
    if entry and entry.params_after != tree.digest(answer.released):
      raise ValueError(
        f"the ledger has other params for {answer.name}; what was released "
        "cannot be replaced."
      )
    if entry is None:
      issued = certify(
        answer,
        self._terms,
        experiment=self._experiment,
        config=self._workdir.read("config.json"),
        salt=self.salt,
      )
      text = certificate.to_json(issued)
      self._workdir.write(f"{folder}/certificate.json", text)
      if processes.is_first():
        ledger.append(
          self._workdir / LEDGER,
          key=self._key,
          certificate=certificate.sha256(text),
          **line(issued, answer, self._terms, self.salt),
        )
    self._workdir.write_bytes(
      f"{folder}/params.safetensors", to_safetensors(answer.released)
    )

  def fingerprint(self, params: Any) -> str:
    """What the params without noise are called in the run's rows."""
    return fingerprint.params(params, salt=self.salt)

  def _entry(self, name: Name) -> ledger.Entry | None:
    """The ledger's line of a release."""
    content = self._workdir.read(LEDGER)
    entries = ledger.parse(content) if content else ()
    return next((e for e in entries if e.request == str(name)), None)


def to_safetensors(params: Any) -> bytes:
  """The file of params, by their names such as `params/Dense_0/kernel`."""
  leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(params))[0]
  return safetensors.save(
    {tree.path_name(p): np.ascontiguousarray(leaf) for p, leaf in leaves}
  )


def from_safetensors(path: Path, like: Any) -> Any:
  """The params of a file, in the structure of others.

  Raises:
    ValueError: if it is damaged, or holds other names, shapes or dtypes.
    OSError: if it cannot be read.
  """
  content = path.read_bytes()
  try:
    found: Mapping[str, np.ndarray] = safetensors.load(content)
  except Exception as error:  # of the reader's own kinds
    raise ValueError(f"{path.name} is damaged ({error}).") from error
  if safetensors.save(dict(found)) != content:
    raise ValueError(f"{path.name} is not written in the one form allowed.")
  names = tree.names(like)
  if set(found) != set(jax.tree.leaves(names)):
    raise ValueError(f"{path.name} holds other leaves than the model has.")

  def leaf(name, expected):
    value = found[name]
    if (value.shape, value.dtype) != (expected.shape, expected.dtype):
      raise ValueError(
        f"{path.name} has {name!r} as {value.dtype}{list(value.shape)}; it "
        f"must be {expected.dtype}{list(expected.shape)}."
      )
    return value

  return jax.tree.map(leaf, names, like)


def _kept(workdir, name, new):
  """What a file of the run holds, made where there is none."""
  content = workdir.read(name)
  if content is None:
    workdir.write_bytes(name, new())
    content = workdir.read(name)
  return content
