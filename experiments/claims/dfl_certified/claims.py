"""Claims 1 to 6 of certified unlearning in decentralized federated learning.

Eight clients train linear heads on digits (`federation`) and, without a
certificate, a small convolutional net (`network`). What is forgotten are
records of one client, but where a class or a client is named; retraining is
from scratch. A run that was stopped begins again. See
`junlearn.methods.decentralized_newton`.
"""

from collections.abc import Iterator

import jax
from absl import flags

from experiments.claims.dfl_certified import (
  correction,
  cost,
  detection,
  fisher,
  network,
  propagation,
  soundness,
)
from experiments.claims.dfl_certified.heads import features
from experiments.claims.dfl_certified.mechanism import MAX_DISTANCE
from experiments.claims.dfl_certified.problem import cases
from experiments.run.claim import Claim
from experiments.run.workdir import Workdir
from junlearn.data import load

_INSTANCES = flags.DEFINE_integer(
  "instances",
  200,
  "dfl_certified: random requests for records; an eighth as many for classes, "
  "and for clients, come on top.",
  lower_bound=5,
)
_RELEASES = flags.DEFINE_integer(
  "releases",
  10_000,
  "dfl_certified: releases behind each likelihood-ratio test.",
  lower_bound=100,
)
_NETWORK_ROUNDS = flags.DEFINE_integer(
  "network_rounds",
  400,
  "dfl_certified: rounds of training of the convolutional net.",
  lower_bound=1,
)


def run(
  workdir: Workdir, seeds: int
) -> Iterator[tuple[list[Claim], list[str]]]:
  """For each claim, its parts and the table behind them."""
  digits = load("digits", data_dir=flags.FLAGS.data_dir)
  train, test = features(digits.train), features(digits.test)
  with jax.enable_x64(True):
    usual = cases(train, seeds)
  for measure in (
    lambda: propagation.claims(usual),
    lambda: correction.claims(usual),
    lambda: soundness.claims(train, workdir, _INSTANCES.value),
    lambda: detection.claims(usual, samples=_RELEASES.value),
    lambda: fisher.claims(digits, seeds),
    lambda: cost.utility(usual, test),
    lambda: cost.costs(
      usual, ("6b", "6c", "6d", "6e"), distance=MAX_DISTANCE, what="certified"
    ),
    lambda: cost.costs(
      usual, ("6f", "6g", "6h", "6i"), distance=None, what="residual 1e-8"
    ),
    lambda: cost.costs(
      cases(train, seeds, longest=True, local_steps=(1,)),
      ("6j", "6k"),
      distance=MAX_DISTANCE,
      what="certified, longest step",
    ),
  ):
    # Entered anew each time: a generator that rests inside leaves it on for
    # its caller.
    with jax.enable_x64(True):
      measured = measure()
    yield measured
  yield network.claims(digits, seeds, num_rounds=_NETWORK_ROUNDS.value)
