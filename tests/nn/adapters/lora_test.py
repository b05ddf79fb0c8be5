"""Adapters against merged weights, dense gradients and NumPy."""

import functools
from types import SimpleNamespace

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, traverse_util
from scipy import stats

from junlearn import loop
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.nn import CNN, MLP, ResNet
from junlearn.nn.adapters import lora
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import transformer
from junlearn.objective import weighted
from junlearn.transform import Request
from tests.nn.nets import CLASSES, HIDDEN, LAYERS, WIDTH, Stack

KEY = jax.random.key(0)
ALPHA, RANK = 6.0, 2
IMAGES = (2, 8, 8, 1)

# Module, shape of the inputs, pattern, modules that it finds.
NETS = {
  "mlp": (MLP(CLASSES, (6, 9)), (4, 7), "Dense_[01]", 2),
  "cnn": (CNN(CLASSES, (4,), 6), IMAGES, "", 2),
  "resnet": (ResNet(CLASSES, (1,), 4), IMAGES, "Dense_0", 1),
  "dense": (linen.Dense(CLASSES), (4, 7), "", 1),
  "stacked": (Stack(), (4, WIDTH), "layers/(up|down)", 2),
  "remat": (Stack(remat=True), (4, WIDTH), "up|head", 2),
  "unrolled": (Stack(scan=False), (4, WIDTH), "layers_[02]/up", 2),
}


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


@functools.cache
def setting(name):
  """A model and its adapted form; params with fresh adapters; inputs."""
  module, shape, pattern, _ = NETS[name]
  model, inputs = from_linen(module), normal(1, *shape)
  params, adapters = model.init(KEY, inputs[:1]), Lora(pattern, RANK, ALPHA)
  return SimpleNamespace(
    adapters=adapters,
    model=model,
    adapted=adapters.model(model),
    params=params,
    fresh=adapters.init(KEY, params),
    inputs=inputs,
  )


def drawn(params, seed=2):
  """The params with all factors drawn at random, b included."""
  base, adapters = lora.split(params)
  leaves, structure = jax.tree.flatten(adapters)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  leaves = [
    jax.random.normal(key, leaf.shape, leaf.dtype) / 4
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return {**base, "lora": jax.tree.unflatten(structure, leaves)}


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_close(left, right, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right
  )


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, params, inputs, key=None):
  return model.apply(params, inputs, key)[0]


def energy(model, params, inputs):
  return jnp.sum(jnp.sin(outputs(model, params, inputs)))


@pytest.mark.parametrize("name", NETS)
def test_fresh_adapters_change_nothing_and_dropping_restores_all(name):
  s = setting(name)
  expected = outputs(s.model, s.params, s.inputs)
  assert_equal(outputs(s.adapted, s.fresh, s.inputs), expected)
  assert_equal(outputs(s.adapted, s.params, s.inputs), expected)  # has none
  changed = drawn(s.fresh)
  assert np.abs(outputs(s.adapted, changed, s.inputs) - expected).max() > 0.01
  assert_equal(outputs(s.model, changed, s.inputs), expected)  # not adapted
  dropped = s.adapters.drop(changed)
  assert jax.tree.structure(dropped) == jax.tree.structure(s.params)
  assert_equal(dropped, s.params)


# Its head is that of the other image net, and it compiles for long.
@pytest.mark.parametrize("name", [n for n in NETS if n != "resnet"])
def test_outputs_and_gradients_are_those_of_merged_weights(name, x64):
  del x64
  s = setting(name)
  params, inputs = jax.tree.map(
    lambda leaf: leaf.astype(float), (drawn(s.fresh), s.inputs)
  )
  gradient = jax.jit(jax.value_and_grad(energy, argnums=1), static_argnums=0)
  value, found = gradient(s.adapted, params, inputs)
  merged = s.adapters.merge(params)
  expected, dense = gradient(s.model, merged, inputs)
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  scale = ALPHA / RANK
  dense = traverse_util.flatten_dict(dense["params"])
  factors = traverse_util.flatten_dict(params["lora"])
  paths = [path[:-1] for path in factors if path[-1] == "a"]
  assert len(paths) == NETS[name][-1]
  for path in paths:
    full = dense[*path, "kernel"]
    expected = {
      "a": scale * full @ factors[*path, "b"].mT,
      "b": scale * factors[*path, "a"].mT @ full,
    }
    got = functools.reduce(lambda tree, part: tree[part], path, found["lora"])
    assert_close(got, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merge_against_numpy(dtype):
  s = setting("stacked")
  params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn(s.fresh))
  merged = s.adapters.merge(params)
  for module in ("up", "down"):
    own = params["params"]["layers"][module]
    factors = params["lora"]["layers"][module]
    kernel, a, b = (
      np.asarray(leaf, np.float64)
      for leaf in (own["kernel"], factors["a"], factors["b"])
    )
    exact = [kernel[i] + 3.0 * (a[i] @ b[i]) for i in range(LAYERS)]
    expected = jnp.asarray(np.float32(exact)).astype(dtype)
    found = merged["params"]["layers"][module]
    assert found["kernel"].dtype == dtype
    if dtype == "bfloat16":  # rounded once, at the end
      assert jnp.mean(found["kernel"] == expected) > 0.99
    np.testing.assert_allclose(
      np.float32(found["kernel"]),
      np.float32(expected),
      rtol=1e-5 if dtype == "float32" else 2**-7,
      atol=1e-6,
    )
    assert_equal(found["bias"], own["bias"])
  assert_equal(merged["params"]["head"], params["params"]["head"])


def test_dtypes_are_kept():
  half = jnp.bfloat16
  module = Stack(param_dtype=half)
  model, inputs = from_linen(module), normal(1, 4, WIDTH).astype(half)
  params = model.init(KEY, inputs)
  adapters = Lora("layers", RANK, ALPHA)
  adapted = adapters.model(model)
  for dtype in (None, jnp.float32):
    fresh = adapters.init(KEY, params, dtype=dtype)
    leaves = jax.tree.leaves(fresh["lora"])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype or half)}
    assert_equal(
      outputs(adapted, fresh, inputs), outputs(model, params, inputs)
    )
    changed = drawn(fresh)
    found = outputs(adapted, changed, inputs)
    expected = outputs(model, adapters.merge(changed), inputs)
    assert found.dtype == expected.dtype == half
    np.testing.assert_allclose(
      found.astype(jnp.float32), expected.astype(jnp.float32), atol=0.1
    )


def shapes(jaxpr):
  """Shapes of everything that a program computes, in its inner ones too."""
  for equation in jaxpr.eqns:
    yield from (v.aval.shape for v in equation.outvars)
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from shapes(inner)


@pytest.mark.parametrize("name", ["stacked", "remat", "unrolled"])
@pytest.mark.parametrize("train", [False, True])
def test_nothing_of_the_shape_of_a_kernel_is_computed(name, train):
  s = setting(name)
  base, adapters = lora.split(drawn(s.fresh))
  key = KEY if train else None
  large = {
    (*layers, *sides)
    for layers in ((), (LAYERS,))
    for sides in ((WIDTH, HIDDEN), (HIDDEN, WIDTH))
  }

  def computed(function, argument):
    return set(shapes(jax.make_jaxpr(function)(argument).jaxpr))

  def adapted(adapters):
    params = {**base, "lora": adapters}
    return jnp.sum(outputs(s.adapted, params, s.inputs, key))

  assert not computed(adapted, adapters) & large
  assert not computed(jax.grad(adapted), adapters) & large

  # The search does find such things where they are.
  def merged(adapters):
    params = s.adapters.merge({**base, "lora": adapters})
    return jnp.sum(outputs(s.model, params, s.inputs, key))

  def full(params):
    return jnp.sum(outputs(s.model, params, s.inputs, key))

  assert computed(merged, adapters) & large
  assert computed(jax.grad(full), base) & large


def test_many_adapters_are_mapped_over_one_model():
  s = setting("stacked")
  base, _ = lora.split(s.fresh)
  each = [drawn(s.fresh, seed)["lora"] for seed in (3, 4, 5)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
  mapped = jax.jit(
    jax.vmap(
      functools.partial(outputs, s.adapted),
      ({"params": None, "lora": 0}, None),
    )
  )
  found = mapped({**base, "lora": stacked}, s.inputs)
  for row, adapters in zip(found, each, strict=True):
    expected = outputs(s.adapted, {**base, "lora": adapters}, s.inputs)
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_compiled_programs_are_not_mixed_up():
  s = setting("mlp")
  params = drawn(s.fresh)
  compiled = jax.jit(functools.partial(outputs, s.model))
  scales = [Lora("", RANK, alpha) for alpha in (1.0, 2.0)]
  adapted = {adapters: adapters.adapt(compiled) for adapters in scales}
  for _ in range(2):
    assert_equal(compiled(params, s.inputs), compiled(s.params, s.inputs))
    for adapters, function in adapted.items():
      np.testing.assert_allclose(
        function(params, s.inputs),
        outputs(s.model, adapters.merge(params), s.inputs),
        rtol=1e-5,
      )


def test_a_decoder_is_adapted_step_by_step():
  config = transformer.Config(
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
  )
  tokens = jnp.arange(6).reshape(2, 3)
  model, decoder = transformer.model(config), transformer.decoder(config)
  adapters = Lora("self_attn|mlp", RANK, ALPHA)
  params = adapters.init(KEY, model.init(KEY, tokens))
  assert optax.tree.size(params["lora"]) == 2 * RANK * sum(
    sum(kernel.shape[1:]) for kernel in lora.kernels(params).values()
  )
  params = drawn(params)
  step = jax.jit(adapters.adapt(decoder.step))
  cache, found = decoder.init(params, 2, 3), []
  for column in range(3):
    logits, cache = step(params, tokens[:, column, None], cache)
    found.append(logits[:, 0])
  expected = outputs(model, adapters.merge(params), tokens)
  np.testing.assert_allclose(
    jnp.stack(found, axis=1), expected, rtol=1e-4, atol=1e-4
  )


def test_training_mode_refreshes_statistics_and_keeps_adapters():
  s = setting("resnet")
  params = drawn(s.fresh)
  _, found = s.adapted.apply(params, s.inputs, KEY)
  _, expected = s.model.apply(s.params, s.inputs, KEY)
  assert_equal(s.adapters.drop(found), expected)
  assert_equal(found["lora"], params["lora"])


def test_fresh_factors_are_gaussian():
  kernels = {
    "one": {"kernel": jnp.zeros((400, 30))},
    "two": {"kernel": jnp.zeros((400, 30))},
    "many": {"kernel": jnp.zeros((2, 100, 60))},
  }
  params = {"params": kernels}
  adapters = Lora("", 20, ALPHA).init(KEY, params)["lora"]
  for module, inputs in (("one", 400), ("many", 100)):
    a, b = adapters[module]["a"], adapters[module]["b"]
    np.testing.assert_array_equal(b, 0)
    for scale, accepted in ((1.0, True), (0.9, False), (1.1, False)):
      normalized = np.ravel(a) * np.sqrt(inputs) / scale
      assert (stats.kstest(normalized, "norm").pvalue > 0.01) == accepted
  firsts = [adapters["one"]["a"], adapters["two"]["a"]]
  firsts += [adapters["many"]["a"][i] for i in range(2)]
  assert len({float(a[0, 0]) for a in firsts}) == 4
  alone = Lora("two", 20, ALPHA).init(KEY, params)["lora"]
  assert_equal(alone, {"two": adapters["two"]})


def test_only_adapters_are_free():
  s = setting("stacked")
  view, params = s.adapters.view(), drawn(s.fresh)
  free, fixed = view.split(params)
  assert_equal(view.merge(free, fixed), params)
  other = jax.tree.map(jnp.ones_like, free)
  assert_equal(view.split(view.merge(other, fixed)), (other, fixed))
  numbers = LAYERS * RANK * 2 * (WIDTH + HIDDEN)
  assert optax.tree.size(free) == numbers
  state = optax.adam(0.1).init(free)
  sizes = [leaf.size for leaf in jax.tree.leaves(state)]
  assert sum(sizes) == 2 * numbers + 1  # two moments and a count


def unlearn(s, model, optimizer=None, **kwargs):
  return descend(
    weighted(cross_entropy(model), forget=-1.0, retain=1.0),
    optimizer or optax.sgd(0.1, momentum=0.9),
    num_steps=3,
    batch_size=2,
    view=s.adapters.view(),
    **kwargs,
  )


def request(s):
  labels = jnp.arange(4) % CLASSES
  examples = {"input": s.inputs, "label": labels, "id": jnp.arange(4)}
  half = lambda rows: jax.tree.map(lambda leaf: leaf[rows], examples)  # noqa: E731
  return Request(half(slice(2)), half(slice(2, 4)))


def test_descent_moves_adapters_alone_and_in_both_loops():
  s = setting("stacked")
  result = unlearn(s, s.adapted)(KEY, s.fresh, request(s))
  assert result.info["finite"]
  norms = result.info["steps"]["gradient_norm"]
  assert norms.shape == (3,) and (norms > 0).all()
  assert_equal(s.adapters.drop(result.params), s.params)
  moved = jax.tree.map(
    lambda a, b: bool(jnp.any(a != b)), result.params["lora"], s.fresh["lora"]
  )
  assert all(jax.tree.leaves(moved))
  hosted = unlearn(s, s.adapted, loop=loop.host())(KEY, s.fresh, request(s))
  assert_close(hosted.params, result.params, rtol=1e-5, atol=1e-6)


def test_adapters_that_the_model_leaves_out_are_an_error():
  s = setting("stacked")
  result = unlearn(s, s.model)(KEY, s.fresh, request(s))
  assert not result.info["finite"]
  assert np.isnan(result.info["steps"]["gradient_norm"]).all()
  with pytest.raises(loop.NonFiniteError, match="is the model adapted"):
    unlearn(s, s.model, loop=loop.host())(KEY, s.fresh, request(s))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"params": {"kernel": 1}}, "params have no key 'params'; they must be"),
    ({"params": setting("mlp").fresh}, "have adapters; merge or drop them"),
    ({"pattern": "("}, r"pattern is '\('; it must be a regular expression"),
    ({"alpha": 0.0}, r"alpha is 0\.0; it must be finite and above 0"),
    ({"alpha": np.nan}, "alpha is nan; it must be finite and above 0"),
    (
      {"pattern": "q_proj"},
      r"'q_proj' finds no dense kernel; there are: Dense_0, Dense_1, Dense_2\.",
    ),
    (
      {"pattern": "Conv", "params": setting("cnn").params},
      "'Conv' finds no dense kernel; there are: Dense_0, Dense_1",
    ),
    ({"rank": 0}, "rank is 0; it must be at least 1"),
    ({"rank": 7}, "rank is 7; it must be from 1 to 6, .* of 'Dense_0'"),
  ],
  ids=lambda value: None if isinstance(value, dict) else value[:20],
)
def test_adapters_that_cannot_be_are_refused(change, message):
  given = {"params": setting("mlp").params, "pattern": "", "rank": 1}
  given = {**given, "alpha": 1.0, **change}
  params = given.pop("params")
  with pytest.raises(ValueError, match=message):
    Lora(**given).init(KEY, params)


@pytest.mark.parametrize(
  "function",
  [
    lora.split,
    Lora("", 1, 1.0).drop,
    Lora("", 1, 1.0).merge,
    Lora("", 1, 1.0).view().split,
  ],
  ids=["split", "drop", "merge", "view"],
)
def test_params_without_adapters_are_refused(function):
  with pytest.raises(ValueError, match=r"have no adapters; Lora\.init gives"):
    function(setting("mlp").params)


def test_adapters_of_what_is_no_dense_are_refused():
  model = from_linen(linen.MultiHeadDotProductAttention(num_heads=2))
  inputs = normal(1, 3, 4, 6)
  adapters = Lora("query", 2, 1.0)
  params = adapters.init(KEY, model.init(KEY, inputs))
  with pytest.raises(ValueError, match="'query' has adapters, but is a DenseG"):
    outputs(adapters.model(model), params, inputs)


@pytest.mark.parametrize("name", ["mlp", "stacked"])
def test_adapters_of_another_rank_are_refused(name, tmp_path):
  """The scale alpha / r is that of the rank that they were made with."""
  s = setting(name)
  other = Lora(s.adapters.pattern, RANK + 1, ALPHA)
  for use in (
    lambda: outputs(other.model(s.model), s.fresh, s.inputs),
    lambda: other.merge(s.fresh),
    lambda: other.export(tmp_path, s.fresh),
  ):
    with pytest.raises(ValueError, match="have the rank 2, not 3"):
      use()


@pytest.mark.parametrize(
  ("edit", "words"),
  [
    (lambda m: {"a": m["a"]}, "must be a and b of a dense kernel"),
    (lambda m: {"b": m["b"]}, "must be a and b of a dense kernel"),
    (lambda m: {**m, "b": m["b"][:1]}, "have the rank 1, not 2"),
    (lambda m: {**m, "a": m["a"][:, :1]}, "have the rank 1, not 2"),
  ],
)
def test_broken_adapters_are_not_merged(edit, words):
  net = setting("mlp")
  modules = net.fresh["lora"]
  broken = {**modules, "Dense_0": edit(modules["Dense_0"])}
  with pytest.raises(ValueError, match=f"'Dense_0' {words}"):
    net.adapters.merge({**net.fresh, "lora": broken})


def test_adapters_of_no_module_are_not_merged():
  net = setting("mlp")
  modules = {**net.fresh["lora"], "Dense_9": net.fresh["lora"]["Dense_0"]}
  with pytest.raises(ValueError, match="'Dense_9' must be a and b of a dense"):
    net.adapters.merge({**net.fresh, "lora": modules})
