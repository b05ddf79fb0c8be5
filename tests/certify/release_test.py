"""Certified releases of a hand-made bound, with noise that can be drawn again.

`methods.newton_release_test` and `clients.retraining_test` have real bounds.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from junlearn.certify import calibrate, noise
from junlearn.certify.release import NotReachedError, describe
from junlearn.transform import Request, Result, chain, stage_key
from tests.certify.handmade import (
  DELTA,
  EPSILON,
  KEY,
  LIMIT,
  REQUEST,
  SIZE,
  bound_of,
  flat,
  make,
  move,
  no_entropy,
  params,
  release,
  stay,
)


def rounding_of(distance, numbers=SIZE):
  """What a grid of at most `2^-20 sigma` adds, and its step."""
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, distance)
  step = 2.0 ** math.floor(math.log2(sigma / 2**20))
  return step * math.sqrt(numbers), step


# What is released.


@pytest.mark.parametrize("measured", [0.0, 0.1, LIMIT])
def test_sigma_depends_on_public_numbers_alone(x64, measured):
  result = release(bound_of(measured, retrain_error=0.05))
  found = result.info["release"]
  rounding, step = rounding_of(LIMIT + 0.05)
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, LIMIT + 0.05 + rounding)
  np.testing.assert_allclose(
    (found.sigma, found.grid, found.rounding),
    (sigma, step, rounding),
    rtol=1e-12,
  )
  assert found.measured.result == measured
  assert found.noise_dimensions == SIZE and not found.fallback


def test_noise_has_the_scale_of_sigma_and_is_added_once(x64):
  start = {"w": jnp.zeros((3000, SIZE))}
  result = make()(KEY, start, REQUEST)
  scores = (flat(result.params) - 0.01) / result.info["release"].sigma
  assert stats.kstest(scores, "norm").pvalue > 0.001
  for wrong in (0.9, 1.1, np.sqrt(2)):
    assert stats.kstest(scores * wrong, "norm").pvalue < 1e-4


def test_joint_noise_is_for_every_number_of_every_row(x64):
  start = {"w": jnp.ones((8, 40)), "v": jnp.ones((8, 3))}
  result = make()(KEY, start, REQUEST)
  assert result.info["release"].noise_dimensions == 8 * 43
  noisy = np.concatenate([result.params["w"], result.params["v"]], 1)
  for i in range(8):
    for j in range(i):
      assert np.mean(noisy[i] == noisy[j]) < 0.1


def test_a_bound_of_rows_shares_noise_and_nothing_else_can_be_said(x64):
  """The norm of the bound decides, there being no other argument."""
  start = {"w": jnp.ones((8, 40)), "v": jnp.ones((8, 3))}
  result = make(bound_of(0.1, norm="row"))(KEY, start, REQUEST)
  assert result.info["release"].noise_dimensions == 43
  for leaf in jax.tree.leaves(result.params):
    np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
  for name in ("noise", "mode", "norm", "retrain_error"):
    with pytest.raises(TypeError, match=name):
      make(**{name: noise})


def test_rows_that_differ_are_not_released(x64):
  start = {"w": jnp.ones((8, 4)).at[3, 1].add(1e-9)}
  transform = make(bound_of(0.1, norm="row"), stay, entropy=no_entropy)
  with pytest.raises(ValueError, match="the rows of the leaf 'w' differ"):
    transform(KEY, start, REQUEST)


def test_a_release_is_drawn_anew_each_time(x64):
  transform = chain(release=make())
  first, second = (transform(KEY, params(), REQUEST) for _ in range(2))
  assert (flat(first.params) != flat(second.params)).all()
  assert first.info["release"]["release"] == second.info["release"]["release"]


def test_noise_is_that_of_the_entropy_on_what_the_stage_left(x64):
  rng = np.random.default_rng(0)
  result = release(entropy=rng.bytes)
  terms = result.info["release"]
  moved = move(KEY, params(), REQUEST).params
  expected = noise.add(
    moved,
    sigma=terms.sigma,
    step=terms.grid,
    norm="joint",
    entropy=np.random.default_rng(0).bytes,
  )
  np.testing.assert_array_equal(flat(result.params), flat(expected))
  assert terms == describe(
    bound_of(0.1),
    moved,
    REQUEST,
    epsilon=EPSILON,
    delta=DELTA,
    max_distance=LIMIT,
  )


def test_bound_reads_the_params_of_the_stage_and_the_request(x64):
  def measure(params, request):
    return jnp.max(params["b"]) - request.retain

  request = Request(None, jnp.asarray(1.0))
  result = make(bound_of(measure))(KEY, params(), request)
  found = result.info["release"].measured
  np.testing.assert_allclose(found.result, 0.01)
  assert result.info["stage"] == {"moved": True}
  assert result.request is request
  traced = jax.jit(bound_of(measure).distance)(
    move(KEY, params(), request).params, request
  )
  np.testing.assert_allclose(traced, found.result, rtol=1e-15)


def test_the_stage_has_a_key_of_its_own(x64):
  def stage(key, params, request):
    return Result(params, request, jax.random.key_data(key))

  found = release(stage=stage).info["stage"]
  expected = jax.random.key_data(stage_key(KEY, "stage"))
  np.testing.assert_array_equal(found, expected)


# The likelihood-ratio test: the strongest distinguisher of two releases.


def auc(first, second):
  """Probability that a number of the second sample is the larger."""
  n, m = len(first), len(second)
  ranks = stats.rankdata(np.concatenate([first, second]))[n:]
  return (ranks.sum() - m * (m + 1) / 2) / (n * m)


def empirical_delta(draws, distance, sigma):
  """`max_O P[O] - e^epsilon P'[O]`, at the likelihood-ratio threshold."""
  threshold = distance / 2 + EPSILON * sigma**2 / distance
  inside = np.mean(draws + distance > threshold)
  return inside - np.exp(EPSILON) * np.mean(draws > threshold)


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (0.5, False)])
def test_likelihood_ratio_test(x64, factor, passes):
  """Releases at the largest distance allowed; half the noise is found out.

  Each of 40,000 rows stands for a model of seven numbers.
  """
  start = {"w": jnp.zeros((40000, SIZE))}
  entropy = np.random.default_rng(7).bytes
  transform = make(bound_of(LIMIT), stay, entropy=entropy)
  result = transform(KEY, start, REQUEST)
  used = factor * result.info["release"].sigma
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, LIMIT)
  analytic = calibrate.gaussian_delta(EPSILON, LIMIT, used)
  assert (analytic <= DELTA) == passes
  # Along the worst direction.
  draws = factor * np.asarray(result.params["w"]) @ np.full(SIZE, SIZE**-0.5)
  allowed = special.ndtr(LIMIT / (np.sqrt(2) * sigma)) + 0.02
  assert (auc(draws[:20000], draws[20000:] + LIMIT) <= allowed) == passes
  found = empirical_delta(draws, LIMIT, used)
  # Three standard errors of counts with the probability DELTA.
  margin = 3 * np.sqrt((1 + np.exp(2 * EPSILON)) * DELTA / len(draws))
  assert (found <= DELTA + margin) == passes


# Where the bound is not met.


@pytest.mark.parametrize("far", [LIMIT * 1.0001, math.nan, math.inf])
def test_nothing_is_released_where_the_bound_is_not_met(x64, far):
  with pytest.raises(NotReachedError, match="nothing was released"):
    release(bound_of(far), entropy=no_entropy)


def test_a_negative_bound_is_an_error_of_whoever_computed_it(x64):
  with pytest.raises(ValueError, match=r"gradient_norm is -0\.1"):
    release(bound_of(-0.1), entropy=no_entropy)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_nothing_is_released_of_params_that_are_not_finite(x64, wrong):
  broken = {**params(), "w": jnp.full((2, 2), wrong)}
  with pytest.raises(
    ValueError, match=re.escape(f"against a param of {wrong}")
  ):
    make(entropy=no_entropy)(KEY, broken, REQUEST)


def nearness(params, request):
  """0.3 for what `stay` leaves, and 0.1 for what `move` does."""
  del request
  return 0.3 - 20 * (jnp.max(params["b"]) - 1.0)


def test_a_fallback_retrains_where_the_stage_does_not_come_near(x64):
  seen = []

  def retrain(key, params, request):
    seen.append(jax.random.key_data(key))
    return move(key, params, request)

  near = bound_of(nearness)
  result = release(near, stay, fallback=retrain)
  terms = result.info["release"]
  assert terms.fallback and result.info["stage"] == {"moved": True}
  np.testing.assert_allclose(terms.measured.result, 0.1)
  assert terms.measured.result <= terms.max_distance == LIMIT
  (key,) = seen
  expected = jax.random.key_data(stage_key(KEY, "fallback"))
  np.testing.assert_array_equal(key, expected)
  # Where the stage comes near, nothing is retrained.
  other = release(near, move, fallback=retrain).info["release"]
  assert not other.fallback and len(seen) == 1
  assert other._replace(fallback=True) == terms


def test_a_fallback_is_held_to_the_same_distance(x64):
  for fallback in (None, stay):
    with pytest.raises(NotReachedError, match=r"at most 0\.3, above max_dist"):
      release(bound_of(nearness), stay, fallback=fallback, entropy=no_entropy)


def test_a_fallback_does_not_hide_a_broken_assumption(x64):
  def refuse(params, request):
    raise ValueError("the records are wrong.")

  bound = bound_of(0.1, checks={"records": refuse})
  with pytest.raises(ValueError, match="the records are wrong"):
    release(bound, fallback=move, entropy=no_entropy)


def test_checks_come_before_any_work_and_again_after_it(x64):
  calls = []

  def check(params, request):
    calls.append(float(params["b"][0]))
    return "The records are right."

  def stage(key, params, request):
    calls.append("stage")
    return move(key, params, request)

  bound = bound_of(0.1, checks={"records": check})
  result = release(bound, stage)
  assert calls == [1.0, "stage", 1.01]
  assert result.info["release"].checked == {"records": "The records are right."}
