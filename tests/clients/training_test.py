"""A training's risk and rounds are those of its attributes."""

import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.clients import rounds
from junlearn.clients.training import Training
from tests import softmax
from tests.clients.problem import assert_close, logistic, on_all

STEP, L2 = 0.4, 0.1


def training(clients, **attributes):
  return Training(clients.mixing, **{"step_size": STEP, "l2": L2, **attributes})


def dense_gradients(clients, params, weighting):
  """Of F_i, from two scores of which the first is 0."""
  sizes = clients.examples["weight"].sum(1, dtype=float)
  scales = np.ones(len(sizes))
  if weighting == "sample":
    scales = len(sizes) * sizes / sizes.sum()
  in_w, in_b = [], []
  for i, scale in enumerate(scales):
    x = clients.examples["input"][i]
    x = np.hstack([x, np.ones((len(x), 1))])
    own = np.append(params["w"][i], params["b"][i])
    theta = np.stack([np.zeros_like(own), own], 1).ravel()
    slope = softmax.gradient(
      theta,
      x,
      clients.examples["label"][i],
      clients.examples["weight"][i],
      L2,
      scale,
    ).reshape(-1, 2)[:, 1]
    in_w.append(slope[:-1])
    in_b.append(slope[-1])
  return {"w": np.array(in_w), "b": np.array(in_b)}


def moved(params, gradients):
  return {k: params[k] - STEP * gradients[k] for k in params}


def mixed(clients, params):
  return {k: np.tensordot(clients.mixing, v, 1) for k, v in params.items()}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weighting", ["uniform", "sample"])
def test_one_step_is_taken_together_with_the_gossip(weighting):
  clients = logistic(4, np.float64)
  round_ = training(clients, weighting=weighting).round(clients.loss)
  slopes = dense_gradients(clients, clients.params, weighting)
  expected = moved(mixed(clients, clients.params), slopes)
  after = on_all(round_, clients.params, clients.examples)
  assert_close(after, expected, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weighting", ["uniform", "sample"])
def test_several_steps_come_before_the_gossip(weighting):
  clients = logistic(4, np.float64)
  round_ = training(clients, local_steps=3, weighting=weighting).round(
    clients.loss
  )
  expected = clients.params
  for _ in range(3):
    slopes = dense_gradients(clients, expected, weighting)
    expected = moved(expected, slopes)
  after = on_all(round_, clients.params, clients.examples)
  assert_close(after, mixed(clients, expected), 1e-12)


@pytest.mark.usefixtures("x64")
def test_risk_is_penalised_and_weighted():
  clients = logistic(4, np.float64)
  risk = training(clients, weighting="sample").risk(clients.loss)
  sizes = clients.examples["weight"].sum(1, dtype=float)
  nothing = {"w": np.zeros((4, 5)), "b": np.zeros(4)}
  shares = len(sizes) * sizes / sizes.sum()
  assert_close(
    on_all(risk, nothing, clients.examples), shares * np.log(2), 1e-12
  )
  empty = {
    **clients.examples,
    "weight": jnp.asarray(clients.examples["weight"]).at[1].set(0),
  }
  w, b = clients.params["w"][1], clients.params["b"][1]
  np.testing.assert_allclose(
    on_all(risk, clients.params, empty)[1], L2 / 2 * (w @ w + b**2)
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("local_steps", [1, 3])
def test_rounds_leave_a_fixed_point_alone(local_steps):
  clients = logistic(4, np.float64)
  round_ = training(clients, local_steps=local_steps).round(clients.loss)
  reach = rounds.to_fixed_point(round_, tolerance=1e-12, max_rounds=5000)
  fixed, info = on_all(reach, clients.params, clients.examples)
  assert info.residual[0] <= 1e-12
  assert_close(on_all(round_, fixed, clients.examples), fixed, 1e-11)


@pytest.mark.parametrize(
  ("attributes", "message"),
  [
    ({"step_size": 0.0}, r"step_size is 0\.0; it must be finite and above 0"),
    ({"step_size": 0.0, "local_steps": 2}, r"step_size is 0\.0"),
    ({"l2": -1.0}, r"l2 is -1\.0; it must be at least 0"),
    ({"weighting": "equal"}, "weighting is 'equal'; it must be 'uniform' or"),
    ({"local_steps": 0}, "num_steps is 0; it must be at least 1"),
  ],
)
def test_bad_attributes(attributes, message):
  clients = logistic(4)
  with pytest.raises(ValueError, match=message):
    training(clients, **attributes).round(clients.loss)


def test_a_matrix_of_other_clients_is_refused():
  clients = logistic(4)
  round_ = training(logistic(8)).round(clients.loss)
  with pytest.raises(ValueError, match="mixing has 8 rows; for 4 clients"):
    on_all(round_, clients.params, clients.examples)
