"""The cost that the claims state is the cost that was paid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.claims.dfl_certified import effort, federation, heads, problem
from junlearn.clients import data, topology, training
from junlearn.methods import decentralized_newton


@pytest.fixture
def counted(monkeypatch):
  """Counts the rounds of gossip."""
  calls = []

  def counting(mixing):
    mix = dense(mixing)

    def counted_mix(params):
      jax.debug.callback(calls.append, jnp.zeros(()))
      return mix(params)

    return counted_mix

  dense = training.dense
  for module in (training, decentralized_newton):
    monkeypatch.setattr(module, "dense", counting)
  return calls


@pytest.mark.parametrize("tau", [1, 3])
def test_communication_rounds_are_those_made(x64, counted, tau):
  rng = np.random.default_rng(0)
  n = federation.CLIENTS * 6
  examples = {
    "input": rng.normal(size=(n, 4)) / 4,
    "label": rng.integers(0, 10, n).astype(np.int32),
    "id": np.arange(n),
  }
  clients = problem.clients_of(examples, "sorted", 0)
  mixing = topology.metropolis_hastings(topology.ring(federation.CLIENTS))
  trained = federation.Federation(
    heads.HEADS["softmax"], mixing, l2=0.05, local_steps=tau
  )
  request = data.request_by_class(clients, 3)
  stage = jax.jit(trained.transform(max_distance=1e-6, tolerance=0.1))
  start = trained.start(clients)
  found = stage(jax.random.key(0), start, request)
  jax.effects_barrier()
  stated = effort.effort_of_correction(found.info, tau)
  certificate = 1
  assert found.info.steps > 1
  assert len(counted) == stated.communication_rounds - certificate
