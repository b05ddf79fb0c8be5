"""Claim 6: a convolutional net, without a certificate.

A client leaves the ring with all its records, and the others are corrected by
damped Gauss-Newton steps. The attack tells what was forgotten from test images
of the same classes; the retrained models' values are what to compare with.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.dfl_certified.federation import CLIENTS
from experiments.claims.dfl_certified.problem import clients_of
from experiments.claims.dfl_certified.statement import Measured, claim, empty
from experiments.decentralized.tasks import records
from experiments.run.tables import table
from junlearn import nn
from junlearn.audit import membership
from junlearn.audit.outputs import predict
from junlearn.audit.utility import accuracy
from junlearn.clients import data, rounds, topology
from junlearn.clients.retraining import for_all
from junlearn.clients.training import Training
from junlearn.data import Dataset
from junlearn.loss import cross_entropy
from junlearn.methods import decentralized_newton
from junlearn.model import from_linen

_STEP_SIZE, _L2 = 0.3, 1e-3
_CORRECTION = {
  "curvature": "gauss_newton",
  "damping": 0.01,
  "num_steps": 10,
  "cg_steps": 30,
  "tolerance": 0.01,
}


def claims(digits: Dataset, seeds: int, *, num_rounds: int) -> Measured:
  """Accuracy and attack, means over seeds and the clients that remain."""
  model = from_linen(nn.CNN(digits.num_classes))
  ring = topology.ring(CLIENTS)
  mixings = topology.metropolis_hastings(ring), topology.remove(ring, 0)
  before, after = (Training(mixing, _STEP_SIZE, _L2) for mixing in mixings)
  train, retrain = (
    for_all(
      rounds.iterate(
        training.round(cross_entropy(model)), num_rounds=num_rounds
      ),
      "vmap",
    )
    for training in (before, after)
  )
  correct = decentralized_newton.transform(model, after, **_CORRECTION)
  rows = empty()
  for how in ("iid", "sorted"):
    for seed in range(seeds):
      clients = clients_of(digits.train, how, seed)
      # Another one leaves for each seed; it becomes client 0.
      clients = {k: np.roll(v, -seed, axis=0) for k, v in clients.items()}
      request = data.request_by_client(clients, 0)
      start = model.init(jax.random.key(seed), digits.train["input"][:1])
      start = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (CLIENTS, *x.shape)), start
      )
      trained = train(start, clients)
      models = {
        "original": trained,
        "retrained": retrain(start, request.retain),
        "corrected": correct(jax.random.key(seed), trained, request).params,
      }
      for name, params in models.items():
        measured = _audit(model, params, request.forget, digits.test, seed)
        for quantity, value in measured.items():
          rows[how, name][quantity].append(value)

  found = []
  for how, letters in (("iid", "lm"), ("sorted", "no")):
    own, other = (rows[how, name] for name in ("corrected", "retrained"))
    gap = np.abs(np.subtract(own["test accuracy"], other["test accuracy"]))
    found += [
      claim(f"6{letters[0]}", f"CNN, {how}: test accuracy, correction and "
            "retraining apart (points), mean", "<=", 3, gap.mean()),
      claim(f"6{letters[1]}", f"CNN, {how}: accuracy of the attack less 50 "
            "(points), mean", "<=", 5, abs(np.mean(own["attack"]) - 50)),
    ]  # fmt: skip
  return found, table(
    "Claim 6: a convolutional net after a client has left, in percent",
    rows,
    key=("records", "model"),
  )


def _audit(model, params, forget, test, seed) -> dict[str, float]:
  """Means over the clients that remain, in percent."""
  params = jax.tree.map(lambda leaf: leaf[1:], params)
  gone = records(forget)
  same = np.isin(test["label"], gone["label"])
  logits = {
    name: predict(model, params, examples["input"], stacked=True)
    for name, examples in (("gone", gone), ("test", test))
  }
  attacks = [
    membership.logistic_attack(
      (of_gone, gone["label"]), (of_test[same], test["label"][same]), seed=seed
    )
    for of_gone, of_test in zip(logits["gone"], logits["test"], strict=True)
  ]
  return {
    "test accuracy": 100 * accuracy(logits["test"], test["label"]),
    "forget accuracy": 100 * accuracy(logits["gone"], gone["label"]),
    "attack": 100 * float(np.mean(attacks)),
    "attack, worst node": 100 * float(np.max(attacks)),
  }
