"""Whatever is drawn, `certified` releases nothing beyond what it measured.

The bench `experiments.bench.certificates` asks the same of many more draws.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from experiments.bench.certificates import attack, draws, oracle
from experiments.bench.certificates.broken import BROKEN, breakages
from experiments.bench.certificates.programs import Program
from experiments.bench.certificates.worst import instances, terms
from junlearn.clients import retraining, topology
from junlearn.clients.training import Training
from junlearn.model import from_function
from junlearn.transform import Request
from tests import softmax

# Each is compiled once, which takes longer than all draws.
PROGRAMS = (
  Program("dense", 3, 1e-3),
  Program("function", 5, 1.0),
  Program("opposite scores", 2, 0.03),
  Program("convolution", 4, 0.01, "consensus", "one left", "sample"),
  Program("dense, no bias", 2, 0.1, "stacked", "path", "sample"),
  Program("dense", 2, 0.03, "stacked", "random", "uniform", 3),
)
SQUARED = Program("squared loss", 3, 0.02)


def drawn(program):
  reach = 0.0 if program.local_steps > 1 else 1.0
  return st.builds(
    draws.Draw,
    seed=st.integers(0, 2**31),
    scale=st.floats(-2, reach).map(lambda power: 10.0**power),
    present=st.integers(3, 40),
    max_distance=st.floats(-8, 0).map(lambda power: 10.0**power),
    offset=st.one_of(
      st.sampled_from([0.0, 1 - 1e-6, 1 + 1e-6, 10.0]),
      st.floats(-8, 0).map(lambda power: 10.0**power),
    ),
    direction=st.sampled_from(["random", "flat", "origin"]),
    fallback=st.booleans(),
    broken=st.one_of(st.just(""), st.sampled_from(breakages(program))),
  )


pairs = st.sampled_from(PROGRAMS).flatmap(
  lambda program: st.tuples(st.just(program), drawn(program))
)


# To make a failure smaller would take minutes.
@settings(
  max_examples=60,
  deadline=None,
  derandomize=True,
  database=None,
  phases=[Phase.generate],
)
@given(pair=pairs)
def check(pair):
  outcome = draws.attempt(*pair)
  assert draws.holds(outcome, pair[1]), outcome


@pytest.mark.usefixtures("x64")
def test_nothing_is_released_beyond_what_was_measured():
  check()


def flat(offset, **options):
  draw = draws.Draw(9, 0.5, 30, 0.01, offset, "flat", False, "")
  return draw._replace(**options)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "program", PROGRAMS, ids=lambda p: f"{p.head} {p.form}"
)
def test_the_bound_is_attained(program):
  """So that the law above is not kept by refusing everything."""
  near = draws.attempt(program, flat(1 - 1e-3))
  assert near.kind == "released", near.reason
  if program.form != "consensus" or program.graph != "one left":
    assert 0.999 * near.bound <= near.distance <= near.bound
  far = flat(1.001)
  assert draws.attempt(program, far).kind == "not reached"
  again = draws.attempt(program, far._replace(fallback=True))
  assert again.kind == "released"
  assert again.distance < 1e-12


@pytest.mark.usefixtures("x64")
def test_a_bound_that_is_too_small_is_found_out(monkeypatch):
  program = PROGRAMS[0]
  bound = draws._bound(program, "")
  short = bound._replace(constants={"l2": program.l2 * (1 + 1e-6)})
  monkeypatch.setattr(draws, "_bound", lambda *_: short)
  draw = flat(0.99)
  assert not draws.holds(draws.attempt(program, draw), draw)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_refused(broken):
  """Of params that would else be released."""
  program = next(p for p in reversed(PROGRAMS) if broken in breakages(p))
  draw = flat(0.0, broken=broken, max_distance=1.0)
  outcome = draws.attempt(program, draw)
  assert draws.holds(outcome, draw), outcome
  assert outcome.reason


@pytest.mark.usefixtures("x64")
def test_a_loss_of_the_users():
  draw = flat(1 - 1e-6)
  outcome = draws.attempt(SQUARED, draw)
  assert outcome.kind == "released"
  assert draws.holds(outcome, draw)
  assert outcome.distance > (1 - 1e-6) * outcome.bound


@pytest.mark.usefixtures("x64")
def test_a_matrix_that_is_as_far_off_as_is_allowed():
  """What its rows sum to beyond 1 takes from the convexity; closed form.

  With the loss z every client's x' is -1 / (l2 - excess / gamma), and from 0
  nothing but the allowance tells that from -1 / l2.
  """
  gamma, l2, excess = 0.01, 1e-3, 0.9 * topology.TOLERANCE
  mixing = topology.metropolis_hastings(topology.ring(4)) + excess * np.eye(4)
  examples = {
    "input": jnp.ones((4, 3, 1)),
    "label": jnp.zeros((4, 3), int),
    "id": jnp.arange(12).reshape(4, 3),
  }
  first = jnp.zeros((4, 3)).at[0, 0].set(1)
  parts = ({**examples, "weight": weight} for weight in (first, 1 - first))
  bound = retraining.bound(
    from_function(lambda params, x: x @ params),
    Training(mixing, gamma, l2),
    features="Ones.",
    output_loss=lambda outputs, examples: outputs.sum(-1),
    convex="It is linear.",
  )
  params, request = jnp.zeros((4, 1, 1)), Request(*parts)
  assert "mixing" in bound.check(params, request)
  away = 2 / (l2 - (mixing.sum(1)[0] - 1) / gamma)
  found = bound.measured(params, request).result
  assert away * (1 - 1e-6) < 2 / l2 < away <= found < away * (1 + 1e-6)


def test_the_oracle_is_right():
  """Against another one, and where it says that it is 0."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(20, 3)), rng.integers(0, 4, 20)
  weight = rng.integers(0, 2, 20)
  problem = oracle.Problem(
    x[None].astype(oracle.EXTENDED),
    np.zeros((1, 20, 4)),
    np.eye(4)[y][None],
    weight[None],
    np.eye(4),
    False,
    l2=0.01,
  )
  found = oracle.solve(oracle.minimum, problem)
  expected = softmax.minimum(
    lambda theta: softmax.gradient(theta, x, y, weight, 0.01),
    lambda theta: softmax.hessian(theta, x, weight, 0.01),
    np.zeros(12),
  )
  np.testing.assert_allclose(found.astype(float).ravel(), expected, atol=1e-12)
  same = oracle.solve(oracle.fixed_point, problem._replace(step_size=0.3))
  np.testing.assert_allclose(same.astype(float), found.astype(float))
  squared = oracle.solve(oracle.minimum, problem._replace(squared=True))
  rows = x[weight > 0]
  gram = 2 * rows.T @ rows / len(rows) + 0.01 * np.eye(3)
  closed = np.linalg.solve(gram, 2 * rows.T @ np.eye(4)[y][weight > 0]) / len(
    rows
  )
  np.testing.assert_allclose(squared[0].astype(float), closed, atol=1e-13)


# The best test between a release and retraining's.

INSTANCES = instances()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", INSTANCES)
def test_the_best_test_finds_what_is_claimed_and_no_more(name):
  instance, claim, seed = INSTANCES[name](), (1.0, 1e-2), 3
  release = terms(instance, instance.worst, *claim)
  assert release.measured.result > (1 - 1e-5) * release.max_distance
  assert attack.same_releases(instance, *claim, 3, seed)
  found = attack.audit(instance, *claim, 100_000, seed)
  assert found.least_delta <= 1e-2
  assert found.least_epsilon <= 1.0 <= 1.5 * found.epsilon
  half = attack.audit(instance, *claim, 20_000, seed, factor=0.5)
  assert half.least_delta > 1e-2
  assert half.least_epsilon > 1.0
  if instance.bound.norm == "row":
    apart = attack.audit(instance, *claim, 20_000, seed, norm="joint")
    assert apart.least_delta > 1e-2
    assert apart.least_epsilon > 1.0


def test_separate_draws_for_the_rows_of_a_consensus():
  """What the certificate of an early version was worth."""
  np.testing.assert_allclose(attack.epsilon_of_separate_draws(1, 1, 1e-5), 1)
  found = attack.epsilon_of_separate_draws(8, 1, 1e-5)
  np.testing.assert_allclose(found, 3.19, atol=0.005)
