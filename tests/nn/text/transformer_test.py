"""The decoder against loops in NumPy, and its forms against one another."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import language, tree
from junlearn.nn.adapters.lora import Lora
from junlearn.nn.text import rope, transformer
from junlearn.nn.text.transformer import CONFIGS, Config, Llama3Scaling

SCALING = Llama3Scaling(4.0, 1.0, 4.0, 32)
SMALL = Config(
  vocab_size=29,
  hidden_size=12,
  intermediate_size=20,
  num_layers=2,
  num_heads=6,
  num_kv_heads=2,
  head_dim=4,
  max_length=16,
)
# Everything that a checkpoint may have, in double precision.
FULL = dataclasses.replace(
  SMALL,
  rope_theta=100.0,
  rope_scaling=SCALING,
  rms_norm_eps=1e-3,
  tie_embeddings=False,
  attention_bias=True,
  dtype="float64",
  param_dtype="float64",
)


def tokens(n=3, length=11, seed=1):
  return jax.random.randint(
    jax.random.key(seed), (n, length), 0, SMALL.vocab_size, jnp.int32
  )


@functools.cache
def fresh(config=SMALL):
  """Params at which no part is trivial: norms and biases are random too."""
  shapes = jax.eval_shape(
    transformer.model(config).init, jax.random.key(0), tokens()
  )
  rng = np.random.default_rng(0)

  def draw(name, leaf):
    center = 1 if name.endswith("scale") else 0
    return jnp.asarray(rng.normal(center, 0.3, leaf.shape), leaf.dtype)

  return tree.map_leaves(draw, shapes)


@functools.cache
def compiled(config):
  return jax.jit(lambda p, x: transformer.model(config).apply(p, x)[0])


def packed(*lengths, width=11):
  """Rows' dict inputs whose records have these lengths; the rest padding."""
  segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
  positions = np.concatenate([np.arange(length) for length in lengths])
  fill = (0, width - len(segments))
  return np.pad(positions, fill), np.pad(segments, fill)


def as_dict(tokens, positions, segments):
  shape = jnp.shape(tokens)
  return {
    "tokens": jnp.asarray(tokens, jnp.int32),
    "positions": jnp.broadcast_to(jnp.asarray(positions, jnp.int32), shape),
    "segments": jnp.broadcast_to(jnp.asarray(segments, jnp.int32), shape),
  }


# The oracle: one token, head and position at a time.


def slow_frequency(i, config):
  frequency = config.rope_theta ** (-2 * i / config.size_of_head)
  scaling = config.rope_scaling
  if scaling is None:
    return frequency
  wavelength = 2 * math.pi / frequency
  if wavelength < scaling.original_max_length / scaling.high_freq_factor:
    return frequency
  if wavelength > scaling.original_max_length / scaling.low_freq_factor:
    return frequency / scaling.factor
  smooth = (
    scaling.original_max_length / wavelength - scaling.low_freq_factor
  ) / (scaling.high_freq_factor - scaling.low_freq_factor)
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency


def slow_rotate(head, position, config):
  half = len(head) // 2
  rotated = np.zeros_like(head)
  for i in range(half):
    angle = position * slow_frequency(i, config)
    number = complex(head[i], head[half + i]) * complex(
      math.cos(angle), math.sin(angle)
    )
    rotated[i], rotated[half + i] = number.real, number.imag
  return rotated


def slow_norm(x, scale, config):
  return x / math.sqrt(np.mean(x**2) + config.rms_norm_eps) * scale


def slow_attention(xs, positions, segments, layer, config):
  size = config.size_of_head
  group = config.num_heads // config.num_kv_heads

  def heads(x, name):
    y = x @ layer[name]["kernel"]
    if config.attention_bias:
      y = y + layer[name]["bias"]
    return y.reshape(-1, size)

  outputs = []
  for t, x in enumerate(xs):
    joined = []
    for h, q in enumerate(heads(x, "q_proj")):
      q = slow_rotate(q, positions[t], config)
      seen = [s for s in range(t + 1) if segments[s] == segments[t]]
      scores, values = [], []
      for s in seen:
        k = heads(xs[s], "k_proj")[h // group]
        k = slow_rotate(k, positions[s], config)
        scores.append(q @ k / math.sqrt(size))
        values.append(heads(xs[s], "v_proj")[h // group])
      weights = np.exp(scores) / np.sum(np.exp(scores))
      joined.append(weights @ np.array(values))
    outputs.append(np.concatenate(joined) @ layer["o_proj"]["kernel"])
  return outputs


def slow_logits(params, config, row, positions, segments):
  params = jax.tree.map(np.asarray, transformer.unstack(params))["params"]
  xs = [params["embed_tokens"]["embedding"][token] for token in row]
  for i in range(config.num_layers):
    layer = params[f"layers_{i}"]
    ys = [slow_norm(x, layer["input_layernorm"]["scale"], config) for x in xs]
    ys = slow_attention(ys, positions, segments, layer["self_attn"], config)
    xs = [x + y for x, y in zip(xs, ys, strict=True)]
    for t, x in enumerate(xs):
      y = slow_norm(x, layer["post_attention_layernorm"]["scale"], config)
      gate = y @ layer["mlp"]["gate_proj"]["kernel"]
      up = y @ layer["mlp"]["up_proj"]["kernel"]
      gate = gate / (1 + np.exp(-gate))
      xs[t] = x + (gate * up) @ layer["mlp"]["down_proj"]["kernel"]
  xs = [slow_norm(x, params["norm"]["scale"], config) for x in xs]
  head = (
    params["embed_tokens"]["embedding"].T
    if config.tie_embeddings
    else params["lm_head"]["kernel"]
  )
  return np.array(xs) @ head


@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize(
  "changes",
  [{}, {"tie_embeddings": True, "attention_bias": False}],
  ids=["untied, bias", "tied"],
)
def test_logits_are_those_of_loops(x64, changes, form):
  config = dataclasses.replace(FULL, **changes)
  params = jax.tree.map(lambda p: p.astype(jnp.float64), fresh(config))
  row = np.asarray(tokens(1))
  positions, segments = packed(11) if form == "plain" else packed(4, 6)
  inputs = tokens(1) if form == "plain" else as_dict(row, positions, segments)
  logits = compiled(config)(params, inputs)
  assert logits.dtype == jnp.float64
  expected = slow_logits(params, config, row[0], positions, segments)
  np.testing.assert_allclose(logits[0], expected, rtol=1e-10, atol=1e-10)


def test_scaled_frequencies():
  plain = rope.inverse_frequencies(16, 1e4)
  scaled = rope.inverse_frequencies(16, 1e4, SCALING)
  config = dataclasses.replace(
    SMALL, head_dim=16, rope_theta=1e4, rope_scaling=SCALING
  )
  np.testing.assert_allclose(
    scaled, [slow_frequency(i, config) for i in range(8)]
  )
  assert scaled[0] == plain[0]
  assert scaled[-1] == plain[-1] / 4
  assert any(p / 4 < s < p for p, s in zip(plain, scaled, strict=True))


def unstacked(config=SMALL):
  return dataclasses.replace(config, scan_layers=False)


def loss_and_gradient(config, params):
  model = transformer.model(config)
  mask = jnp.ones(tokens().shape, bool).at[:, 0].set(False)
  examples = {"input": tokens(), "mask": mask}

  @jax.jit
  def run(params):
    def mean(params):
      losses, _ = language.cross_entropy(model)(params, examples)
      return jnp.mean(losses)

    return jax.value_and_grad(mean)(params)

  return run(params)


def assert_close(ours, theirs, **tolerances):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, **tolerances), ours, theirs
  )


@pytest.fixture(scope="module")
def gradients():
  return loss_and_gradient(SMALL, fresh())


@pytest.mark.parametrize("scan", [True, False], ids=["stacked", "unrolled"])
def test_forms_agree(gradients, scan):
  """Stacked or not, activations kept or not: same loss, same gradient."""
  config = dataclasses.replace(SMALL, scan_layers=scan, remat=True)
  params = fresh() if scan else transformer.unstack(fresh())
  loss, gradient = loss_and_gradient(config, params)
  if not scan:
    gradient = transformer.stack(gradient)
  assert_close((loss, gradient), gradients, rtol=1e-4, atol=1e-6)
  plain = compiled(unstacked())(transformer.unstack(fresh()), tokens())
  np.testing.assert_allclose(
    plain, compiled(SMALL)(fresh(), tokens()), rtol=1e-5, atol=1e-5
  )


def test_remat_computes_again():
  def products(remat):
    config = dataclasses.replace(unstacked(), remat=remat)
    step = jax.grad(lambda p: jnp.sum(transformer.model(config).apply(p, x)[0]))
    x = tokens()
    text = jax.jit(step).lower(transformer.unstack(fresh())).as_text()
    return text.count("dot_general")

  assert products(True) > products(False)


def test_every_gradient_is_finite_and_moves(gradients):
  for leaf in jax.tree.leaves(gradients):
    assert np.isfinite(leaf).all()
    assert np.abs(leaf).max() > 0


def test_unstack_inverts_stack():
  adapters = Lora("q_proj|down_proj", rank=2, alpha=4)
  params = adapters.init(jax.random.key(3), fresh())
  apart = transformer.unstack(params)
  assert {"layers_0", "layers_1"} < set(apart["params"])
  assert "layers" not in apart["lora"]
  jax.tree.map(np.testing.assert_array_equal, transformer.stack(apart), params)
  like = jax.eval_shape(
    transformer.model(unstacked()).init, jax.random.key(0), tokens()
  )
  assert jax.tree.map(jnp.shape, apart["params"]) == jax.tree.map(
    jnp.shape, like["params"]
  )


def test_many_layers_keep_their_order():
  layers = {f"layers_{i}": jnp.array(i) for i in range(12)}
  stacked = transformer.stack({"params": {**layers, "norm": jnp.array(0)}})
  np.testing.assert_array_equal(stacked["params"]["layers"], np.arange(12))


ROOM = 13


def read(config, params, inputs, length=11):
  """Logits of a sequence: eight tokens at once, then one by one."""
  decoder = transformer.decoder(config)
  n = jax.tree.leaves(inputs)[0].shape[0]
  cache = decoder.init(params, n, ROOM)
  step, logits = jax.jit(decoder.step), []
  for start, stop in itertools.pairwise((0, *range(8, length + 1))):
    part = jax.tree.map(lambda x, a=start, b=stop: x[:, a:b], inputs)
    one, cache = step(params, part, cache)
    logits.append(one)
  return np.concatenate(logits, axis=1), cache


@pytest.mark.parametrize("scan", [True, False], ids=["stacked", "unrolled"])
def test_cache_gives_what_reading_at_once_gives(scan):
  config = SMALL if scan else unstacked()
  params = fresh() if scan else transformer.unstack(fresh())
  logits, cache = read(config, params, tokens())
  expected = compiled(config)(params, tokens())
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  assert cache.num_read == 11
  assert cache.k.shape == cache.v.shape == (2, 3, 13, 2, 4)
  assert cache.k.any(axis=(0, 1, 3, 4)).tolist() == [True] * 11 + [False] * 2
  np.testing.assert_array_equal(cache.segments[:, 10:], [[1, 0, 0]] * 3)


def test_cache_of_padded_rows():
  """Padding on the left changes nothing, read at once or token by token."""
  lengths, width = (11, 4, 7), 11
  row = np.zeros((3, width), np.int32)
  positions, segments = row.copy(), row.copy()
  for i, length in enumerate(lengths):
    row[i, width - length :] = tokens()[i, :length]
    positions[i, width - length :] = np.arange(length)
    segments[i, width - length :] = 1
  inputs = as_dict(row, positions, segments)
  at_once = compiled(SMALL)(fresh(), inputs)
  logits, _ = read(SMALL, fresh(), inputs)
  np.testing.assert_allclose(logits, at_once, rtol=1e-5, atol=1e-5)
  alone = compiled(SMALL)(fresh(), tokens())
  for i, length in enumerate(lengths):
    np.testing.assert_allclose(
      at_once[i, width - length :], alone[i, :length], rtol=1e-5, atol=1e-5
    )


def test_packed_records_do_not_see_each_other():
  inputs = as_dict(tokens(), *packed(4, 5))
  logits = compiled(SMALL)(fresh(), inputs)
  for start, stop in ((0, 4), (4, 9)):
    alone = compiled(SMALL)(fresh(), tokens()[:, start:stop])
    np.testing.assert_allclose(
      logits[:, start:stop], alone, rtol=1e-5, atol=1e-5
    )
  assert np.isfinite(logits).all()


def test_later_tokens_are_not_seen():
  changed = tokens().at[:, 6:].set(tokens(seed=5)[:, 6:])
  ours, theirs = (compiled(SMALL)(fresh(), x) for x in (tokens(), changed))
  np.testing.assert_array_equal(ours[:, :6], theirs[:, :6])
  assert np.abs(ours[:, 6:] - theirs[:, 6:]).max() > 0.1


def test_merged_adapters_decode():
  adapters = Lora("q_proj|mlp", rank=2, alpha=4)
  params = adapters.init(jax.random.key(3), fresh())
  params = jax.tree.map(lambda p: p + 0.1, params)
  logits, _ = read(SMALL, adapters.merge(params), tokens())
  adapted = adapters.model(transformer.model(SMALL))
  expected, _ = jax.jit(adapted.apply)(params, tokens())
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
  base, _ = transformer.model(SMALL).apply(adapters.drop(params), tokens())
  assert np.abs(expected - base).max() > 0.1


def test_tokens_beyond_the_room_give_nan():
  logits, _ = read(SMALL, fresh(), tokens(length=15), length=15)
  assert np.isfinite(logits[:, :ROOM]).all()
  assert np.isnan(logits[:, ROOM:]).all()


@pytest.mark.parametrize("scan", [True, False], ids=["stacked", "unrolled"])
def test_features(scan):
  """Each block's input and output, and no work of later blocks."""
  config = SMALL if scan else unstacked()
  params = fresh() if scan else transformer.unstack(fresh())
  apart = transformer.unstack(fresh())["params"]
  streams = [
    transformer.features(config, layer)(params, tokens()) for layer in range(3)
  ]
  np.testing.assert_array_equal(
    streams[0], apart["embed_tokens"]["embedding"][tokens()]
  )
  # A model that ends after the layer, whose last norm is of the same stream.
  for layer in (1, 2):
    short = dataclasses.replace(unstacked(), num_layers=layer)
    logits, _ = transformer.model(short).apply({"params": apart}, tokens())
    x = streams[layer]
    x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + short.rms_norm_eps)
    x = x * apart["norm"]["scale"]
    np.testing.assert_allclose(
      x @ apart["embed_tokens"]["embedding"].T, logits, rtol=1e-4, atol=1e-4
    )
  broken = jax.tree.map(lambda p: p, params)
  poison = functools.partial(jnp.full_like, fill_value=jnp.nan)
  if scan:
    broken["params"]["layers"] = jax.tree.map(
      lambda p: p.at[1].set(jnp.nan), broken["params"]["layers"]
    )
  else:
    broken["params"]["layers_1"] = jax.tree.map(
      poison, broken["params"]["layers_1"]
    )
  for layer, is_finite in enumerate([True, True, False]):
    stream = transformer.features(config, layer)(broken, tokens())
    assert np.isfinite(stream).all() == is_finite
  program = jax.make_jaxpr(transformer.features(config, 1))
  text = str(program(params, tokens()))
  assert "length=2" not in text and text.count("logistic") == 1


def test_narrow_computation_is_close_and_its_loss_is_not_narrow(gradients):
  config = dataclasses.replace(SMALL, dtype="bfloat16")
  logits = compiled(config)(fresh(), tokens())
  expected = compiled(SMALL)(fresh(), tokens())
  assert logits.dtype == jnp.float32
  spread = np.std(expected)
  assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.02 * spread
  loss, gradient = loss_and_gradient(config, fresh())
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, gradients[0], rtol=0.01)
  assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {
    jnp.dtype("float32")
  }
  decoder = transformer.decoder(config)
  assert decoder.init(fresh(), 1, 2).k.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ("name", "published"),
  [
    ("llama-3.2-1b", 1_235_814_400),
    ("llama-3.1-8b", 8_030_261_248),
    ("qwen2-0.5b", 494_032_768),
  ],
)
def test_published_sizes(name, published):
  assert transformer.num_params(CONFIGS[name]) == published


def test_small_size_by_hand():
  # Embedding, last norm; per block 2 norms, q and o, k and v, three maps.
  block = 2 * 12 + 2 * 12 * 24 + 2 * 12 * 8 + 3 * 12 * 20
  assert transformer.num_params(SMALL) == 29 * 12 + 12 + 2 * block


def test_fresh_params_predict_nothing():
  params = transformer.model(SMALL).init(jax.random.key(0), tokens())
  losses, _ = language.cross_entropy(transformer.model(SMALL))(
    params, {"input": tokens(), "mask": jnp.ones((3, 11), bool)}
  )
  np.testing.assert_allclose(losses, math.log(29), atol=1)
  assert (params["params"]["norm"]["scale"] == 1).all()


def test_equal_configs_share_a_model():
  again = dataclasses.replace(SMALL, max_length=16)
  assert transformer.model(again) is transformer.model(SMALL)
  assert transformer.decoder(again) is transformer.decoder(SMALL)


def test_too_long_sequences_are_refused():
  with pytest.raises(ValueError, match="17 tokens; at most 16"):
    transformer.model(SMALL).apply(fresh(), tokens(length=17))
  decoder = transformer.decoder(SMALL)
  with pytest.raises(ValueError, match=r"17 tokens; .* config\.max_length"):
    decoder.init(fresh(), 1, 17)
  with pytest.raises(ValueError, match="4 tokens; at most 3"):
    decoder.step(fresh(), tokens(length=4), decoder.init(fresh(), 3, 3))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_kv_heads": 4}, "num_kv_heads is 4; it must divide num_heads, 6"),
    ({"num_layers": 0}, "num_layers is 0; it must be at least 1"),
    ({"hidden_size": 13, "head_dim": None}, "num_heads is 6; it must divide"),
    ({"head_dim": 3}, "head_dim is 3; it must be even"),
    ({"head_dim": 0}, "head_dim is 0; it must be at least 1"),
    ({"rope_theta": 0.0}, r"rope_theta is 0\.0; it must be finite and above 0"),
    ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan; it must be finite"),
    ({"dtype": "int8"}, "dtype is 'int8'; it must be one of bfloat16"),
  ],
)
def test_bad_configs(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((0.5, 1.0, 4.0, 32), r"factor is 0\.5; it must be at least 1"),
    ((2.0, 4.0, 4.0, 32), r"low_freq_factor is 4\.0 and high_freq_factor 4\.0"),
    ((2.0, 1.0, 4.0, 0), "original_max_length is 0; it must be at least 1"),
  ],
)
def test_bad_scaling(arguments, message):
  with pytest.raises(ValueError, match=message):
    Llama3Scaling(*arguments)


def test_blocks_that_are_not_there():
  with pytest.raises(
    ValueError, match="layer is 3; it must be between 0 and 2"
  ):
    transformer.features(SMALL, 3)
