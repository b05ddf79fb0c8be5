import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from junlearn.certify import calibrate, certified, noise
from junlearn.transform import Request, Result, chain

KEY = jax.random.key(11)
EPSILON, DELTA, LIMIT = 1.0, 1e-3, 0.2
REQUEST = Request(None, None)
SIZE = 7


def params():
  return {"b": jnp.ones(3), "w": jnp.full((2, 2), 2.0)}


def move(key, params, request):
  """A stage that leaves every number 0.01 higher."""
  del key
  moved = jax.tree.map(lambda leaf: leaf + 0.01, params)
  return Result(moved, request, {"moved": jnp.asarray(True)})


def bound_of(value):
  return lambda params, request: value


def make(bound=0.1, **options):
  settings = {"epsilon": EPSILON, "delta": DELTA, "max_distance": LIMIT}
  return certified(move, bound_of(bound), **{**settings, **options})


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def added(transform, keys):
  """Noise of each key, `[keys, numbers]`."""

  def release(key):
    return transform(key, params(), REQUEST).params

  stacked = jax.jit(jax.vmap(release))(keys)
  mean = move(KEY, params(), REQUEST).params
  rows = jax.tree.map(lambda a, b: a - b, stacked, mean)
  return np.concatenate(
    [np.reshape(leaf, (len(keys), -1)) for leaf in jax.tree.leaves(rows)], 1
  )


@pytest.mark.parametrize("mode", ["residual_stopped", "worst_case"])
def test_sigma_depends_on_public_numbers_alone(x64, mode):
  infos = [
    make(bound, mode=mode, comparator=0.05)(KEY, params(), REQUEST).info
    for bound in (0.0, 0.1, LIMIT)
  ]
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, LIMIT + 0.05)
  for info, bound in zip(infos, (0.0, 0.1, LIMIT), strict=True):
    np.testing.assert_allclose(info["sigma"], sigma, rtol=1e-8)
    assert info["certified"] and info["distance"] == bound


def test_noise_has_the_scale_of_sigma_and_is_added_once(x64):
  draws = added(make(), jax.random.split(KEY, 3000))
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, LIMIT)
  scores = draws.ravel() / sigma
  assert stats.kstest(scores, "norm").pvalue > 0.01
  for wrong in (0.9, 1.1, np.sqrt(2)):
    assert stats.kstest(scores * wrong, "norm").pvalue < 1e-4


@pytest.mark.parametrize("bound", [LIMIT * 1.0001, jnp.nan, jnp.inf, -0.1])
def test_nothing_is_released_where_the_bound_is_not_met(x64, bound):
  result = make(bound)(KEY, params(), REQUEST)
  assert not result.info["certified"]
  assert np.isnan(flat(result.params)).all()


def test_nothing_is_released_of_params_that_are_not_finite(x64):
  broken = {**params(), "b": jnp.asarray([0.0, jnp.inf, 0.0])}
  result = make()(KEY, broken, REQUEST)
  assert not result.info["certified"]
  assert np.isnan(flat(result.params)).all()


def test_reported_is_never_certified(x64):
  transform = make(0.1, mode="reported", max_distance=None, comparator=0.02)
  result = transform(KEY, params(), REQUEST)
  assert not result.info["certified"]
  assert np.isfinite(flat(result.params)).all()
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, 0.12)
  np.testing.assert_allclose(result.info["sigma"], sigma, rtol=1e-7)
  assert np.isnan(result.info["max_distance"])


def test_is_a_pure_transform(x64):
  transform = chain(release=make())
  eager = transform(KEY, params(), REQUEST)
  jitted = jax.jit(transform)(KEY, params(), REQUEST)
  keys = jnp.stack([KEY, jax.random.key(1)])
  mapped = jax.vmap(transform, (0, None, None))(keys, params(), REQUEST)
  for other in (jitted, jax.tree.map(lambda leaf: leaf[0], mapped)):
    np.testing.assert_allclose(flat(eager.params), flat(other.params))
    np.testing.assert_allclose(flat(eager.info), flat(other.info))
  abstract = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params())
  assert abstract == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), jitted.params
  )
  different = transform(jax.random.key(1), params(), REQUEST)
  assert (flat(different.params) != flat(eager.params)).all()


def test_bound_reads_the_params_of_the_stage_and_the_request(x64):
  def bound(params, request):
    return jnp.max(params["b"]) - request.retain

  request = Request(None, jnp.asarray(1.0))
  transform = certified(move, bound, epsilon=1.0, delta=0.1, max_distance=LIMIT)
  info = transform(KEY, params(), request).info
  np.testing.assert_allclose(info["distance"], 0.01)
  assert info["certified"] and info["stage"]["moved"]


def test_shared_noise_for_a_consensus(x64):
  transform = make(noise=noise.shared)
  released = transform(KEY, params(), REQUEST).params["w"]
  np.testing.assert_array_equal(released[0], released[1])


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
  """Releases at the largest distance allowed; half the noise is found out."""
  sigma = calibrate.gaussian_sigma(EPSILON, DELTA, LIMIT)

  def scaled(key, params, sigma):
    return noise.independent(key, params, factor * sigma)

  used = factor * sigma
  analytic = calibrate.gaussian_delta(EPSILON, LIMIT, used)
  assert (analytic <= DELTA) == passes
  draws = added(make(LIMIT, noise=scaled), jax.random.split(KEY, 40000))
  draws = draws @ np.full(SIZE, SIZE**-0.5)  # along the worst direction
  allowed = special.ndtr(LIMIT / (np.sqrt(2) * sigma)) + 0.02
  assert (auc(draws[:20000], draws[20000:] + LIMIT) <= allowed) == passes
  found = empirical_delta(draws, LIMIT, used)
  # Three standard errors of counts with the probability DELTA.
  margin = 3 * np.sqrt((1 + np.exp(2 * EPSILON)) * DELTA / len(draws))
  assert (found <= DELTA + margin) == passes


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"mode": "exact"}, "mode is 'exact'"),
    ({"max_distance": None}, "max_distance is None"),
    ({"mode": "reported"}, "max_distance is 0.2; in mode 'reported'"),
    ({"max_distance": 0.0}, "max_distance is 0.0"),
    ({"max_distance": float("nan")}, "max_distance is nan"),
    ({"comparator": -1.0}, "comparator is -1.0"),
    ({"epsilon": 0.0}, "epsilon is 0.0"),
    ({"delta": 1.0}, "delta is 1.0"),
  ],
)
def test_bad_configuration(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_single_precision_is_refused():
  with pytest.raises(ValueError, match="float32"):
    make()(KEY, params(), REQUEST)


@pytest.mark.parametrize(
  ("before", "after"), [("float64", "float32"), ("float32", "float64")]
)
def test_a_stage_that_casts_is_refused(x64, before, after):
  def cast(params, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

  def stage(key, params, request):
    del key
    return Result(cast(params, after), request, {})

  transform = certified(
    stage, bound_of(0.1), epsilon=1.0, delta=0.1, max_distance=1.0
  )
  with pytest.raises(ValueError, match="float32"):
    transform(KEY, cast(params(), before), REQUEST)


def test_state_beside_params_is_refused(x64):
  state = {"params": params(), "batch_stats": {"mean": jnp.zeros(2)}}
  with pytest.raises(ValueError, match="'batch_stats' beside 'params'"):
    make()(KEY, state, REQUEST)
  empty = {"params": params(), "state": {}}
  assert make()(KEY, empty, REQUEST).info["certified"]
