"""Certificates and the ledger of one network's releases.

Below `releases/NAME`: `ledger.jsonl`, and `K/certificate.json` for release K.
The salt of their fingerprints lies in `private/`, beside nothing of the noise.
"""

import hashlib
from typing import Any

from experiments.network_study import Certified, Network, Study, records
from experiments.session import Outcome
from experiments.workdir import Workdir
from junlearn import processes
from junlearn.certify import certificate, fingerprint, ledger
from junlearn.certify.accountant import Account

_SALT = "private/salt"
_COMMON = (
  "Every record's input has norm 1, and a bias is a feature that is 1.",
  "The loss is the cross-entropy of a linear model, penalised on all params.",
  "The mixing matrix is symmetric and doubly stochastic.",
  "Nobody learns the noise, and rounding to float64 is neglected.",
  "Models sent before the deletion, times and step counts are not covered.",
)

_ASSUMPTIONS = {
  "stacked": (
    "Retraining is the same rounds of training without the records, from any "
    "start, until a round moves the clients by at most the tolerance, then the "
    "same noise.",
    *_COMMON,
  ),
  "consensus": (
    "Retraining is the minimiser of the clients' mean risk without the "
    "records, to within the same tolerance, then the same noise.",
    *_COMMON,
  ),
}


class Register:
  """The releases of one seed and method, for one budget.

  Args:
    workdir: of the run.
    name: below `releases`.
    study: gives the recipe and the model.
    network: of the seed.
    seed: its number.
  """

  def __init__(
    self, workdir: Workdir, name: str, study: Study, network: Network, seed: int
  ):
    self._workdir, self._folder = workdir, f"releases/{name}"
    self._study, self._network, self._seed = study, network, seed
    salt = workdir.read(_SALT)
    if salt is None:
      salt = fingerprint.new_salt()
      workdir.write_bytes(_SALT, salt)
    self._salt = salt

  def account(self) -> Account:
    """The budget, and what the releases so far have spent of it."""
    recipe = self._study.recipe
    content = self._workdir.read(f"{self._folder}/ledger.jsonl")
    if content is None:
      return Account(recipe.epsilon, recipe.delta)
    return ledger.account(ledger.parse(content))

  def enter(
    self,
    index: int,
    method: Certified,
    *,
    epsilon: float,
    before: Any,
    corrected: Outcome,
    released: Outcome,
  ) -> None:
    """Writes the certificate and the ledger's line, if they are not there.

    Args:
      index: of the request answered.
      method: how.
      epsilon: of this release alone.
      before: the params before the correction.
      corrected: the correction, without noise.
      released: with noise.

    Raises:
      BudgetError: if the release does not fit the budget.
    """
    if len(self.account().releases) > index:
      return
    study, network, salt = self._study, self._network, self._salt
    request = network.requests[index]
    forgotten = records(request.forget)["id"].tolist()
    issued = certificate.issue(
      experiment="decentralized",
      mode="residual_stopped",
      epsilon=epsilon,
      delta=study.recipe.delta,
      max_distance=study.recipe.max_distance,
      comparator=study.comparator(network),
      noise_dimensions=method.noise_dimensions(released.params),
      measured=study.measured(network, method.form, released.notes["bound"]),
      head=network.head,
      assumptions=_ASSUMPTIONS[method.form],
      iterations=len(corrected.notes["course"]) - 1,
      hashes=certificate.Hashes(
        config=hashlib.sha256(self._workdir.read("config.json")).hexdigest(),
        forget_ids=fingerprint.record_set(forgotten, salt=salt),
        retain_ids=fingerprint.record_set(
          records(request.retain)["id"].tolist(), salt=salt
        ),
        params_before=fingerprint.params(before, salt=salt),
        params_after=released.params_sha256,
      ),
      seeds={"data": fingerprint.seed(self._seed, salt=salt)},
    )
    text = certificate.to_json(issued)
    self._workdir.write(f"{self._folder}/{index}/certificate.json", text)
    if processes.is_first():
      ledger.append(
        self._workdir / f"{self._folder}/ledger.jsonl",
        request=f"request {index}",
        records=fingerprint.records(forgotten, salt=salt),
        params_before=issued.hashes.params_before,
        params_after=issued.hashes.params_after,
        epsilon=study.recipe.epsilon,
        delta=study.recipe.delta,
        distance=issued.distance,
        sigma=issued.sigma,
        certificate=certificate.sha256(text),
      )
