"""Descents against NumPy, scikit-learn and their own single runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from junlearn import batch, loop, view
from junlearn.descent import (
  descend,
  gradient_descent,
  population,
  run,
)
from junlearn.loss import cross_entropy
from junlearn.model import from_function
from junlearn.objective import weighted
from junlearn.transform import Request, stage_key

KEY = jax.random.key(11)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(10, 3)).astype(np.float32)
TARGETS = (INPUTS @ [1.0, -2.0, 0.5] + RNG.normal(size=10)).astype(np.float32)
RETAIN = {"input": INPUTS, "target": TARGETS}
FORGET = {"input": INPUTS[:4] + 1, "target": -TARGETS[:4]}
START = jnp.array([0.1, 0.2, 0.3])


def squared(params, examples, key=None):
  del key
  return jnp.square(examples["input"] @ params - examples["target"]), params


def least_squares(num_steps=7, optimizer=None, **kwargs):
  return gradient_descent(
    weighted(squared, retain=1.0, **kwargs),
    optimizer or optax.sgd(0.05),
    num_steps=num_steps,
    batch_size=4,
  )


def numpy_descent(key, request, num_steps, rate, momentum, decay, weights):
  """The same mini-batches, the gradients and momentum written out."""
  rows = {
    name: np.asarray(
      batch.indices(
        stage_key(key, name),
        getattr(request, name),
        num_steps=num_steps,
        batch_size=4,
      )
    )
    for name in weights
  }
  w, velocity, losses = np.asarray(START, np.float64), np.zeros(3), []
  for step in range(num_steps):
    gradient, loss = decay * w, 0.0
    for name, weight in weights.items():
      examples = getattr(request, name)
      x, y = (examples[k][rows[name][step]] for k in ("input", "target"))
      residual = x @ w - y
      loss += weight * np.mean(residual**2)
      gradient = gradient + weight * 2 * x.T @ residual / 4
    velocity = momentum * velocity + gradient
    w = w - rate * velocity
    losses.append(loss)
  return w, losses


@pytest.mark.parametrize(
  ("make_loop", "momentum"),
  [(loop.scan, 0.9), (loop.host, 0.9), (loop.host, 0.0)],
)
def test_ridge_by_sgd_equals_numpy(make_loop, momentum):
  weights = {"retain": 1.0, "forget": -0.3}
  optimizer = optax.chain(
    optax.add_decayed_weights(0.1),
    optax.sgd(0.05, momentum=momentum or None),
  )
  transform = descend(
    weighted(squared, **weights),
    optimizer,
    num_steps=13,
    batch_size=4,
    loop=make_loop(),
  )
  request = Request(FORGET, RETAIN)
  result = transform(KEY, START, request)
  params, losses = numpy_descent(KEY, request, 13, 0.05, momentum, 0.1, weights)
  np.testing.assert_allclose(result.params, params, rtol=1e-4)
  steps = result.info["steps"]
  np.testing.assert_allclose(steps["loss"], losses, rtol=1e-4)
  np.testing.assert_allclose(
    steps["loss"], steps["retain"] - 0.3 * steps["forget"], rtol=1e-4
  )
  assert bool(result.info["finite"])
  jax.tree.map(np.testing.assert_array_equal, result.request, request)


def test_full_batch_logistic_regression_reaches_the_optimum(x64):
  rng = np.random.default_rng(1)
  n, classes, l2 = 60, 3, 0.05
  inputs = rng.normal(size=(n, 4))
  logits = inputs @ rng.normal(size=(4, classes)) + rng.gumbel(
    size=(n, classes)
  )
  examples = {"input": inputs, "label": np.argmax(logits, axis=1)}
  model = from_function(lambda w, x: x @ w)
  transform = descend(
    weighted(cross_entropy(model), retain=1.0),
    optax.chain(optax.add_decayed_weights(l2), optax.sgd(0.5, momentum=0.8)),
    num_steps=600,
    batch_size=n,
  )
  result = transform(KEY, jnp.zeros((4, classes)), Request(None, examples))
  assert result.params.dtype == jnp.float64
  # scikit-learn minimizes sum(loss) + |w|^2 / (2 C).
  oracle = LogisticRegression(
    C=1 / (n * l2), fit_intercept=False, tol=1e-12, solver="newton-cg"
  ).fit(inputs, examples["label"])
  np.testing.assert_allclose(
    result.params, oracle.coef_.T, rtol=1e-6, atol=1e-7
  )


@pytest.mark.parametrize("make_loop", [loop.scan, loop.host])
def test_no_steps_are_the_identity(make_loop):
  transform = run(least_squares(num_steps=0), make_loop())
  result = transform(KEY, START, Request(None, RETAIN))
  np.testing.assert_array_equal(result.params, START)
  assert result.info["steps"]["loss"].shape == (0,)
  assert bool(result.info["finite"])


def test_steps_have_their_own_keys_that_neither_loop_changes():
  def noisy(params, batch, *, reference, key):
    del batch, reference
    draw = jax.random.uniform(key)
    return jnp.sum(params) * 0, (params, {"draw": draw})

  draws = [
    descend(noisy, optax.sgd(1.0), num_steps=50, batch_size=1, loop=each)(
      KEY, START, Request(None, RETAIN)
    ).info["steps"]["draw"]
    for each in (loop.scan(), loop.host())
  ]
  np.testing.assert_array_equal(*draws)
  assert len(np.unique(draws[0])) == 50


def test_the_reference_is_what_the_descent_began_with():
  def pull(params, batch, *, reference, key):
    del batch, key
    distance = jnp.sum(jnp.square(params - reference - 1))
    return distance, (params, {"reference": jnp.sum(reference)})

  result = descend(pull, optax.sgd(0.3), num_steps=40, batch_size=1)(
    KEY, START, Request(None, RETAIN)
  )
  np.testing.assert_allclose(result.params, START + 1, rtol=1e-5)
  np.testing.assert_allclose(
    result.info["steps"]["reference"], np.full(40, 0.6), rtol=1e-6
  )


def test_parts_that_are_absent_do_not_change_the_batches_of_the_others():
  descent = least_squares()
  rows = [
    descent.init(KEY, START, request)[1]["rows"]["retain"]
    for request in (Request(None, RETAIN), Request(FORGET, RETAIN, FORGET))
  ]
  np.testing.assert_array_equal(*rows)


def test_divergence_is_flagged():
  transform = run(least_squares(200, optax.sgd(1e3)))
  result = transform(KEY, START, Request(None, RETAIN))
  assert not bool(result.info["finite"])


MEMBERSHIP = np.array(
  [[1] * 10, [1, 0] * 5, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]], np.float32
)
STARTS = jnp.stack([START, -START, 2 * START])
SHARED_AXES = Request(None, {"input": None, "target": None, "weight": 0})


@pytest.mark.parametrize("make_loop", [loop.scan, loop.host])
def test_a_population_over_weights_is_its_members_one_by_one(make_loop):
  member = least_squares(optimizer=optax.sgd(0.05, momentum=0.9))
  keys = jax.random.split(KEY, 3)
  many = run(population(member, SHARED_AXES), make_loop())(
    keys, STARTS, Request(None, {**RETAIN, "weight": MEMBERSHIP})
  )
  assert many.info["steps"]["loss"].shape == (7, 3)
  single = jax.jit(run(member))
  for k in range(3):
    one = single(
      keys[k], STARTS[k], Request(None, {**RETAIN, "weight": MEMBERSHIP[k]})
    )
    np.testing.assert_allclose(many.params[k], one.params, rtol=1e-5)
    np.testing.assert_allclose(
      many.info["steps"]["loss"][:, k],
      one.info["steps"]["loss"],
      rtol=1e-5,
      atol=1e-6,
    )


def test_a_member_never_sees_what_its_weights_leave_out():
  # Only the second member has the poisoned row.
  targets = TARGETS.copy()
  targets[3] = np.nan
  weights = np.ones((2, 10), np.float32)
  weights[0, 3] = 0
  many = run(population(least_squares(), SHARED_AXES))(
    jax.random.split(KEY, 2),
    STARTS[:2],
    Request(None, {"input": INPUTS, "target": targets, "weight": weights}),
  )
  finite = np.isfinite(many.params).all(axis=1)
  assert finite.tolist() == [True, False]


def test_a_transform_mapped_over_keys_is_its_single_runs():
  transform = descend(
    weighted(squared, retain=1.0, forget=-0.1),
    optax.sgd(0.05, momentum=0.9),
    num_steps=7,
    batch_size=4,
  )
  keys = jax.random.split(KEY, 8)
  request = Request(FORGET, RETAIN)
  many = jax.jit(jax.vmap(transform, (0, None, None)))(keys, START, request)
  one = jax.jit(transform)
  for k, key in enumerate(keys):
    single = one(key, START, request)
    np.testing.assert_allclose(many.params[k], single.params, rtol=1e-5)
    jax.tree.map(
      lambda a, b, k=k: np.testing.assert_allclose(
        a[k], b, rtol=1e-4, atol=1e-5
      ),
      many.info,
      single.info,
    )
  assert len(np.unique(np.asarray(many.params), axis=0)) == 8


def test_a_transform_can_be_mapped_over_a_hyper_parameter():
  def tuned(rate):
    descent = least_squares(optimizer=optax.sgd(rate, momentum=0.9))
    return run(descent)(KEY, START, Request(None, RETAIN)).params

  rates = jnp.array([0.01, 0.05])
  many = jax.vmap(tuned)(rates)
  for rate, params in zip(rates, many, strict=True):
    np.testing.assert_allclose(params, tuned(rate), rtol=1e-5)


def test_a_jitted_transform_is_traced_once():
  traces = []

  def counted(params, examples, key=None):
    traces.append(1)
    return squared(params, examples, key)

  transform = jax.jit(
    descend(
      weighted(counted, retain=1.0), optax.sgd(0.1), num_steps=3, batch_size=4
    )
  )
  transform(KEY, START, Request(None, RETAIN))
  first = len(traces)
  transform(jax.random.key(1), 2 * START, Request(None, RETAIN))
  assert len(traces) == first > 0


TWO_PARTS = Request(FORGET, RETAIN)
MOMENTUM = optax.sgd(0.05, momentum=0.9)


def in_pieces(objective, make_loop=loop.scan, num_steps=7, **options):
  transform = descend(
    objective,
    MOMENTUM,
    num_steps=num_steps,
    batch_size=8,
    loop=make_loop(),
    **options,
  )
  return lambda params: transform(KEY, params, TWO_PARTS)


@pytest.mark.parametrize("make_loop", [loop.scan, loop.host])
@pytest.mark.parametrize(
  "options",
  [
    {"microbatches": 4},
    {"layout": "replicated"},
    {"layout": "replicated", "microbatches": 2},
  ],
  ids=str,
)
def test_a_batch_in_pieces_is_the_whole_batch(options, make_loop):
  objective = weighted(squared, retain=1.0, forget=-0.3)
  whole = in_pieces(objective)(START)
  pieces = in_pieces(objective, make_loop, **options)(START)
  np.testing.assert_allclose(pieces.params, whole.params, rtol=1e-5)
  assert pieces.params.dtype == whole.params.dtype
  for name, values in whole.info["steps"].items():
    np.testing.assert_allclose(
      pieces.info["steps"][name], values, rtol=1e-5, atol=1e-6, err_msg=name
    )
  assert bool(pieces.info["finite"])


def drawn(num_steps):
  """The targets that the steps read, `[num_steps, 8]`."""
  rows = batch.indices(
    stage_key(KEY, "retain"), RETAIN, num_steps=num_steps, batch_size=8
  )
  return TARGETS[np.asarray(rows)]


@pytest.mark.parametrize(
  ("options", "share"),
  [({"microbatches": 4}, 1), ({"layout": "replicated"}, 1 / 4)],
  ids=["microbatches", "replicated"],
)
def test_state_is_carried_through_microbatches_and_averaged_over_devices(
  options, share
):
  def objective(params, batch, *, reference, key):
    del reference, key
    total = params["state"]["total"] + jnp.sum(batch.retain["target"])
    rows = params["state"]["rows"] + batch.retain["target"].shape[0]
    loss = jnp.mean(jnp.square(params["params"]["w"] - 1))
    state = {"total": total, "rows": rows}
    return loss, ({**params, "state": state}, {"total": total})

  start = {
    "params": {"w": START},
    "state": {"total": jnp.float32(0), "rows": jnp.int32(0)},
  }
  result = in_pieces(objective, **options)(start)
  sums = drawn(7).sum(axis=1)
  np.testing.assert_allclose(
    result.params["state"]["total"], sums.sum() * share, rtol=1e-4
  )
  # Counts are not averaged: each device has counted its own rows.
  assert result.params["state"]["rows"] == int(7 * 8 * share)


@pytest.mark.parametrize(
  "options", [{"microbatches": 4}, {"layout": "replicated"}], ids=str
)
def test_every_piece_has_its_own_key(options):
  def noisy(params, batch, *, reference, key):
    del batch, reference
    draw = jax.random.uniform(key)
    terms = {"draw": draw, "square": draw**2}
    return jnp.sum(params) * 0, (params, terms)

  steps = in_pieces(noisy, num_steps=50, **options)(START).info["steps"]
  variance = steps["square"] - steps["draw"] ** 2
  assert np.all(variance > 1e-3)  # pieces differ within each step
  assert len(np.unique(steps["draw"])) == 50


def test_pieces_are_summed_in_single_precision():
  # In bfloat16 256 + 1 is 256: the mean of the eight would be 32.
  values = np.array([256] + [1] * 7, np.float32)

  def linear(params, examples, key=None):
    del key
    scale = examples["value"].astype(params.dtype)
    return scale * params, params

  descent = gradient_descent(
    weighted(linear, retain=1.0),
    optax.sgd(1.0),
    num_steps=1,
    batch_size=8,
    microbatches=8,
  )
  params = (
    run(descent)(KEY, jnp.bfloat16(0), Request(None, {"value": values}))
  ).params
  assert params.dtype == jnp.bfloat16
  assert params == -jnp.bfloat16(263 / 8)


def test_microbatches_hold_less_and_sums_are_of_what_is_free_alone():
  width, rows = 256, 64

  def loss(params, examples, key=None):
    del key
    hidden = jnp.tanh(examples["input"] @ params["base"])
    return jnp.square(hidden @ params["head"]), params

  params = {"base": jnp.ones((width, width)), "head": jnp.ones(width)}
  request = Request(None, {"input": jnp.ones((rows, width))})

  def temporary_bytes(microbatches, pattern):
    descent = gradient_descent(
      weighted(loss, retain=1.0),
      optax.sgd(0.1),
      num_steps=1,
      batch_size=rows,
      view=view.only(pattern),
      microbatches=microbatches,
    )
    state, xs = descent.init(KEY, params, request)
    step = jax.jit(descent.step).lower(
      state, jax.tree.map(lambda x: x[0], xs), (request, params)
    )
    return step.compile().memory_analysis().temp_size_in_bytes

  whole, pieces = (temporary_bytes(k, "head") for k in (1, 8))
  assert pieces < whole / 4
  assert pieces < params["base"].nbytes / 4
  assert temporary_bytes(8, "") > params["base"].nbytes


def test_adapters_that_do_not_move_are_seen_in_pieces_too():
  still = weighted(lambda params, examples, key=None: (
    examples["target"] + 0 * jnp.sum(params), params
  ), retain=1.0)  # fmt: skip
  must_move = view.full()._replace(must_move=True)
  for options in ({"microbatches": 2}, {"layout": "replicated"}):
    result = in_pieces(still, view=must_move, **options)(START)
    assert np.all(np.isnan(result.info["steps"]["gradient_norm"]))
    assert not bool(result.info["finite"])


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"num_steps": -1, "batch_size": 1}, "num_steps is -1"),
    ({"num_steps": 1, "batch_size": 0}, "batch_size is 0"),
    (
      {"num_steps": 1, "batch_size": 4, "microbatches": 0},
      "microbatches is 0",
    ),
    (
      {"num_steps": 1, "batch_size": 6, "microbatches": 4},
      "batch_size is 6; it must be a multiple of 4",
    ),
    (
      {
        "num_steps": 1,
        "batch_size": 12,
        "microbatches": 2,
        "layout": "replicated",
      },
      "batch_size is 12; it must be a multiple of 8",
    ),
    (
      {"num_steps": 1, "batch_size": 4, "layout": "pmap"},
      "layout is 'pmap'",
    ),
  ],
)
def test_wrong_configuration_is_named(kwargs, message):
  with pytest.raises(ValueError, match=message):
    descend(weighted(squared, retain=1.0), optax.sgd(0.1), **kwargs)


def test_parts_of_disagreeing_length_are_refused():
  bad = {"input": INPUTS, "target": TARGETS[:-1]}
  with pytest.raises(ValueError, match=r"lengths \[9, 10\]"):
    run(least_squares())(KEY, START, Request(None, bad))
