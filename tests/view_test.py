"""Views are lenses, and what they hold fixed stays fixed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn import batch, view
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.model import Model, from_linen
from junlearn.objective import weighted
from junlearn.transform import Request, stage_key

PARAMS = {
  "params": {
    "Dense_0": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones(3)},
    "Dense_01": {"kernel": -np.arange(3.0)},
    "head": [np.full((1, 2), 7.0), np.full(2, 8.0)],
  },
  "batch_stats": {"Dense_0": {"mean": np.full(3, 9.0)}},
}
NAMES = [
  "batch_stats/Dense_0/mean",
  "params/Dense_0/bias",
  "params/Dense_0/kernel",
  "params/Dense_01/kernel",
  "params/head/0",
  "params/head/1",
]


def leaf_names(side):
  """The names of the leaves that are in a side, found independently."""
  flat, _ = jax.tree_util.tree_flatten_with_path(side)
  keys = [
    [getattr(k, "key", getattr(k, "idx", None)) for k in p] for p, _ in flat
  ]
  return {"/".join(map(str, path)) for path in keys}


def scaled(side, factor):
  return jax.tree.map(lambda leaf: factor * leaf + 1, side)


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


views = st.one_of(
  st.just(view.full()),
  st.sampled_from(["kernel", "^params", "/0", "bias|mean", "Dense_0/"]).map(
    view.only
  ),
  st.lists(
    st.sampled_from(["Dense_0", "Dense_01", "head"]), min_size=1, unique=True
  ).map(lambda names: view.layers(*names)),
)


@given(lens=views, a=st.floats(-9, 9), b=st.floats(-9, 9))
def test_lens_laws_of_leafwise_views(lens, a, b):
  free, fixed = lens.split(PARAMS)
  assert_equal(lens.merge(free, fixed), PARAMS)
  assert leaf_names(free) | leaf_names(fixed) == set(NAMES)
  assert not leaf_names(free) & leaf_names(fixed)

  new_free, new_fixed = scaled(free, a), scaled(fixed, b)
  again_free, again_fixed = lens.split(lens.merge(new_free, new_fixed))
  assert_equal(again_free, new_free)
  assert_equal(again_fixed, new_fixed)


@given(data=st.data())
@settings(deadline=None)
def test_lens_laws_of_masks(data):
  mask = jax.tree.map(
    lambda leaf: np.array(
      data.draw(st.lists(st.booleans(), min_size=leaf.size, max_size=leaf.size))
    ).reshape(leaf.shape),
    PARAMS,
  )
  lens = view.where(mask)
  mask["batch_stats"] = jax.tree.map(np.zeros_like, mask["batch_stats"])
  free, fixed = lens.split(PARAMS)
  assert_equal(lens.merge(free, fixed), PARAMS)

  merged = lens.merge(scaled(free, 3), scaled(fixed, -2))
  jax.tree.map(
    lambda m, new, p: np.testing.assert_array_equal(
      new, np.where(m, 3 * p + 1, -2 * p + 1)
    ),
    mask,
    merged,
    PARAMS,
  )
  assert_equal(lens.merge(*lens.split(merged)), merged)
  assert_equal(lens.merge(scaled(free, 3), merged), merged)


@pytest.mark.parametrize(
  ("lens", "names"),
  [
    (view.full(), NAMES[1:]),
    (view.only("kernel$"), [NAMES[2], NAMES[3]]),
    (view.layers("Dense_01"), [NAMES[3]]),
    (view.layers("head", "Dense_01"), NAMES[3:]),
  ],
)
def test_which_leaves_are_free(lens, names):
  assert leaf_names(lens.split(PARAMS)[0]) == set(names)


def test_all_leaves_are_free_where_there_is_no_key_params():
  params = (np.ones(2), {"w": np.ones(3)})
  assert_equal(view.full().split(params)[0], params)


def test_a_single_array_below_params():
  free, _ = view.full().split({"params": np.ones(2), "state": np.ones(1)})
  assert leaf_names(free) == {"params"}


def test_names_are_whole_and_literal_in_layers():
  free = leaf_names(view.layers("Dense_0").split(PARAMS)[0])
  assert not any("Dense_01" in name for name in free)
  with pytest.raises(ValueError, match="finds no leaf"):
    view.layers("ense_0", "hea").split(PARAMS)
  with pytest.raises(ValueError, match="finds no leaf"):
    view.layers("Dense_.").split(PARAMS)


def test_wrong_views_are_named():
  with pytest.raises(ValueError, match=re.escape("'(' is not a regular")):
    view.only("(")
  with pytest.raises(ValueError, match="begin: params/Dense_0/bias"):
    view.only("convolution").split(PARAMS)
  with pytest.raises(ValueError, match="no names"):
    view.layers()


MASK = jax.tree.map(lambda leaf: leaf % 2 == 1, PARAMS)


def test_fixed_entries_of_a_mask_are_0_in_what_is_free():
  """No norm or penalty of the free part counts them."""
  free, _ = view.where(MASK).split(PARAMS)
  assert leaf_names(free) == set(NAMES[1:])
  jax.tree.map(
    lambda m, new, old: np.testing.assert_array_equal(new, np.where(m, old, 0)),
    MASK["params"],
    free["params"],
    PARAMS["params"],
  )


def first(params):
  """A function of all leaves, state too."""
  return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
  "lens", [view.full(), view.only("kernel"), view.where(MASK)]
)
def test_restricted_models_are_functions_of_the_free_leaves(lens):
  params = jax.tree.map(jnp.asarray, PARAMS)

  def refreshed(params, inputs, key=None):
    outputs = first(params) * inputs
    return outputs, params if key is None else scaled(params, 2)

  whole = Model(lambda key, inputs: scaled(params, 3), refreshed)
  model, free = view.restrict(whole, lens, params)
  assert_equal(free, lens.split(params)[0])
  inputs = jnp.arange(3.0)
  for values in (free, scaled(free, 0.5)):
    merged = lens.merge(values, lens.split(params)[1])
    outputs, after = model.apply(values, inputs)
    np.testing.assert_allclose(outputs, first(merged) * inputs, rtol=1e-6)
    assert_equal(after, values)
  # Refreshed statistics are dropped, and so are the derivatives by what is
  # fixed.
  assert_equal(model.apply(free, inputs, jax.random.key(0))[1], free)
  slope = jax.grad(lambda free: jnp.sum(model.apply(free, inputs)[0]))(free)
  expected, _ = lens.split(jax.grad(lambda p: 3 * first(p))(params))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), slope, expected
  )
  fresh = model.init(None, None)
  assert_equal(fresh, lens.split(scaled(params, 3))[0])


class Normed(linen.Module):
  """BatchNorm of the inputs, so that statistics depend on batches alone."""

  @linen.compact
  def __call__(self, x, train: bool = False):
    x = linen.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(
      x
    )
    return linen.Dense(3)(linen.relu(linen.Dense(4)(x)))


MODEL = from_linen(Normed())
KEY = jax.random.key(5)
EXAMPLES = {
  "input": 4 + 2 * jax.random.normal(KEY, (12, 3)),
  "label": jnp.arange(12) % 3,
}
START = jax.jit(MODEL.init)(KEY, EXAMPLES["input"])
HEAVY = optax.chain(
  optax.add_decayed_weights(0.5), optax.sgd(0.1, momentum=0.9)
)


def train(lens, num_steps=6):
  transform = descend(
    weighted(cross_entropy(MODEL), retain=1.0),
    HEAVY,
    num_steps=num_steps,
    batch_size=4,
    view=lens,
  )
  return transform(KEY, START, Request(None, EXAMPLES)).params


def expected_statistics(num_steps=6):
  rows = batch.indices(
    stage_key(KEY, "retain"), EXAMPLES, num_steps=num_steps, batch_size=4
  )
  mean, var = np.zeros(3), np.ones(3)
  for index in np.asarray(rows):
    inputs = np.asarray(EXAMPLES["input"], np.float64)[index]
    mean = 0.9 * mean + 0.1 * inputs.mean(axis=0)
    var = 0.9 * var + 0.1 * inputs.var(axis=0)
  return {"mean": mean, "var": var}


def assert_statistics_are_refreshed(params):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
    params["batch_stats"]["bn"],
    expected_statistics(),
  )


@pytest.mark.parametrize(
  ("lens", "moving"),
  [
    (None, r"^params/"),
    (view.only("params/.*kernel"), r"kernel"),
    (view.layers("Dense_1"), r"Dense_1"),
  ],
)
def test_only_free_leaves_move_and_statistics_are_only_refreshed(lens, moving):
  new = train(lens)
  assert_statistics_are_refreshed(new)

  def check(path, before, after):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if re.search(moving, name):
      assert not np.array_equal(before, after), name
    elif name.startswith("params/"):
      np.testing.assert_array_equal(before, after, err_msg=name)

  jax.tree_util.tree_map_with_path(check, START, new)


def test_masked_entries_do_not_move_under_momentum_and_weight_decay():
  rng = np.random.default_rng(0)
  mask = {
    "params": jax.tree.map(
      lambda leaf: rng.random(leaf.shape) < 0.5, START["params"]
    ),
    "batch_stats": jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, bool), START["batch_stats"]
    ),
  }
  new = train(view.where(mask))
  assert_statistics_are_refreshed(new)
  jax.tree.map(
    lambda m, before, after: np.testing.assert_array_equal(
      np.where(m, 0, after), np.where(m, 0, before)
    ),
    mask["params"],
    START["params"],
    new["params"],
  )
  kernel = ("params", "Dense_1", "kernel")
  m, before, after = (
    t[kernel[0]][kernel[1]][kernel[2]] for t in (mask, START, new)
  )
  assert np.all((np.asarray(before) != np.asarray(after))[m])


def test_freeing_a_normalised_layer_does_not_optimise_its_statistics():
  assert_statistics_are_refreshed(train(view.layers("bn")))
