"""Cached greedy decoding against decoding that reads everything again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from junlearn.audit.text import generation
from junlearn.language import Decoder
from junlearn.nn.text import transformer

VOCABULARY = 11
EOS = 1
CONFIG = transformer.Config(
  vocab_size=VOCABULARY,
  hidden_size=16,
  intermediate_size=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  max_length=32,
)
ROWS = [
  [int(token) for token in np.random.default_rng(seed).integers(2, 11, size)]
  for seed, size in enumerate([3, 1, 5, 2, 4, 4, 1])
]


def prompts(rows):
  """Lists of tokens as left-padded prompts."""
  length = max(map(len, rows))

  def padded(values):
    values = [[0] * (length - len(row)) + list(row) for row in values]
    return np.array(values, np.int32)

  return {
    "tokens": padded(rows),
    "positions": padded([range(len(row)) for row in rows]),
    "segments": padded([[1] * len(row) for row in rows]),
  }


def running_sum():
  """Says `weight` times the sum of all that it read, plus the position.

  The cache is the sum; tokens of segment 0 are not read.
  """

  def init(params, n, length):
    del params, length
    return jnp.zeros((n, 1), jnp.int32)

  def step(params, inputs, cache):
    new = jnp.where(inputs["segments"] > 0, inputs["tokens"], 0)
    sums = cache + jnp.cumsum(new, axis=1)
    said = (params * sums + inputs["positions"]) % VOCABULARY
    return jax.nn.one_hot(said, VOCABULARY), sums[:, -1:]

  return Decoder(init, step)


def sum_by_hand(row, num_tokens, weight):
  read, said = list(row), []
  while len(said) < num_tokens and EOS not in said:
    said.append((weight * sum(read) + len(read) - 1) % VOCABULARY)
    read.append(said[-1])
  return said + [EOS] * (num_tokens - len(said))


DECODER = running_sum()


@pytest.mark.parametrize("batch_size", [2, 64])
def test_rows_go_on_from_their_own_prompts_until_the_end(batch_size):
  said = generation.greedy(
    DECODER,
    jnp.int32(5),
    prompts(ROWS),
    num_tokens=12,
    eos=EOS,
    batch_size=batch_size,
  )
  assert said.dtype == np.int32
  expected = np.array([sum_by_hand(row, 12, weight=5) for row in ROWS])
  np.testing.assert_array_equal(said, expected)
  ends = np.sum(expected != EOS, axis=1)
  assert len(set(ends)) > 3  # rows of one batch end at different tokens


def test_decoding_stops_when_all_rows_have_ended():
  reads = []

  def step(params, inputs, cache):
    jax.debug.callback(lambda _: reads.append(1), inputs["tokens"][0, 0])
    return DECODER.step(params, inputs, cache)

  # 4 + 8 = 1 modulo 11: the first token said is the end.
  said = generation.greedy(
    DECODER._replace(step=step),
    jnp.int32(1),
    prompts([[4, 7]] * 4),
    num_tokens=20,
    eos=EOS,
  )
  jax.effects_barrier()
  assert (said == EOS).all()
  assert len(reads) <= 2 * jax.local_device_count()  # the prompt, one token


def greedy_uncached(apply, row, num_tokens):
  """Applies the whole model, to rows of one length, for every token.

  Returns the tokens, and the least lead of a token over the next best one.
  """
  said, leads = [], []
  while len(said) < num_tokens and EOS not in said:
    read = row + said
    tokens = np.zeros((1, CONFIG.max_length), np.int32)
    tokens[0, : len(read)] = read
    logits = np.asarray(apply(tokens)[0, len(read) - 1])
    leads.append(np.diff(np.sort(logits)[-2:])[0])
    said.append(int(logits.argmax()))
  return said + [EOS] * (num_tokens - len(said)), min(leads)


def test_a_transformer_says_the_same_with_and_without_cache():
  model = transformer.model(CONFIG)
  params = model.init(jax.random.key(2), np.zeros((1, 4), np.int32))
  # Tied random embeddings say again what they read; larger blocks do not.
  params["params"]["layers"] = jax.tree.map(
    lambda leaf: 3 * leaf, params["params"]["layers"]
  )
  mesh = Mesh(jax.local_devices(), ("columns",))
  divided = jax.tree.map(
    lambda leaf: jax.device_put(
      leaf,
      NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "columns")),
    ),
    params,
  )
  said, said_by_divided = (
    generation.greedy(
      transformer.decoder(CONFIG), each, prompts(ROWS), num_tokens=10, eos=EOS
    )
    for each in (params, divided)
  )
  apply = jax.jit(lambda tokens: model.apply(params, tokens)[0])
  expected, leads = zip(
    *(greedy_uncached(apply, row, 10) for row in ROWS), strict=True
  )
  assert min(leads) > 1e-4  # no tie that rounding could break
  assert len({tuple(row) for row in expected}) > 3
  np.testing.assert_array_equal(said, expected)
  np.testing.assert_array_equal(said_by_divided, expected)


def test_one_device_says_what_all_do(monkeypatch):
  arguments = (DECODER, jnp.int32(5), prompts(ROWS))
  options = {"num_tokens": 9, "eos": EOS, "batch_size": 4}
  everywhere = generation.greedy(*arguments, **options)
  used = []
  put = jax.device_put

  def watched(x, sharding):
    used.append(len(sharding.device_set))
    return put(x, sharding)

  first = jax.local_devices()[:1]
  monkeypatch.setattr(jax, "device_put", watched)
  generation.greedy(*arguments, **options)
  assert set(used) == {4}
  used.clear()
  monkeypatch.setattr(jax, "local_devices", lambda: first)
  alone = generation.greedy(*arguments, **options)
  assert set(used) == {1}
  np.testing.assert_array_equal(alone, everywhere)


def test_bad_input():
  for bad, options, message in (
    (jax.tree.map(lambda x: x[:0], prompts(ROWS)), {}, "prompts is empty"),
    (prompts(ROWS), {"num_tokens": 0}, "num_tokens is 0"),
    (
      jax.tree.map(lambda x: x[:, ::-1], prompts(ROWS)),
      {},
      "padding .segment 0. in 6 of 7 rows",
    ),
  ):
    options = {"num_tokens": 3, "eos": EOS, **options}
    with pytest.raises(ValueError, match=message):
      generation.greedy(DECODER, jnp.int32(3), bad, **options)
