"""Quantization against NumPy loops and the published levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.audit import quantize
from tests import problems

RNG = np.random.default_rng(3)
PARAMS = {
  "params": {
    "embed": {"embedding": RNG.normal(size=(9, 10)).astype(np.float32)},
    "layers": {
      "dense": {
        "kernel": RNG.normal(size=(2, 10, 13)).astype(np.float32),
        "bias": RNG.normal(size=(2, 13)).astype(np.float32),
      },
      "norm": {"scale": RNG.normal(size=(2, 10)).astype(np.float32)},
    },
    "head": {"kernel": RNG.normal(size=(10, 4)).astype(np.float32)},
  }
}
# Appendix E of the paper.
NF4 = [
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
]
ROUNDED = ("params/embed/embedding", "params/layers/dense/kernel",
           "params/head/kernel")  # fmt: skip


def leaves(tree):
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in flat
  }


def channels(name, leaf):
  """Matrices `[out, in]`, one a layer, and how to put them back."""
  if name.endswith("embedding"):
    return [leaf], lambda matrices: matrices[0]
  layers = leaf.reshape(-1, *leaf.shape[-2:])
  return [m.T for m in layers], lambda matrices: np.stack(
    [m.T for m in matrices]
  ).reshape(leaf.shape)


def symmetric_by_loops(matrix, bits):
  top = 2 ** (bits - 1) - 1
  result = np.zeros_like(matrix)
  for i, row in enumerate(matrix):
    scale = max(abs(w) for w in row) / top
    for j, w in enumerate(row):
      result[i, j] = scale * np.rint(w / scale)
  return result


def nf4_by_loops(matrix, bits):
  del bits
  flat, result = matrix.ravel(), []
  for start in range(0, len(flat), 64):
    block = flat[start : start + 64]
    scale = max(abs(block))
    for w in block:
      level = min(NF4, key=lambda each: abs(w / scale - each))
      result.append(scale * level)
  return np.array(result, np.float32).reshape(matrix.shape)


CASES = [("symmetric", 8), ("symmetric", 4), ("symmetric", 3), ("nf4", 4)]


@pytest.mark.parametrize(("scheme", "bits"), CASES)
def test_rounding_equals_loops(scheme, bits):
  oracle = {"symmetric": symmetric_by_loops, "nf4": nf4_by_loops}[scheme]
  result = quantize.quantize(PARAMS, bits=bits, scheme=scheme)
  assert jax.tree.structure(result) == jax.tree.structure(PARAMS)
  before, after = leaves(PARAMS), leaves(result)
  for name, leaf in before.items():
    assert after[name].dtype == leaf.dtype
    if name not in ROUNDED:
      np.testing.assert_array_equal(after[name], leaf, err_msg=name)
      continue
    matrices, restore = channels(name, leaf)
    expected = restore([oracle(matrix, bits) for matrix in matrices])
    np.testing.assert_allclose(
      after[name], expected, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_the_levels_of_nf4_are_the_published_ones():
  weights = np.tile(np.array(NF4, np.float32), 4)[:, None]
  weights[::16] = -1
  result = quantize.quantize({"kernel": weights}, scheme="nf4")
  np.testing.assert_allclose(result["kernel"], weights, atol=2e-7)
  found = quantize.codes({"kernel": weights}, scheme="nf4")["kernel"]
  np.testing.assert_array_equal(found[:, 0], np.tile(np.arange(16), 4))


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_the_error_is_at_most_half_a_bin(bits):
  kernel = RNG.normal(size=(3, 40, 7)).astype(np.float32)
  kernel *= np.geomspace(1e-3, 1e3, 7, dtype=np.float32)
  result = quantize.quantize({"kernel": kernel}, bits=bits)["kernel"]
  scale = np.max(np.abs(kernel), axis=1, keepdims=True)
  error = np.abs(np.asarray(result) - kernel) / scale * (2 ** (bits - 1) - 1)
  assert np.all(error <= 0.5 + 1e-4)
  assert np.max(error) > 0.4  # the bound is near what happens


@pytest.mark.parametrize(("scheme", "bits"), CASES)
def test_rounding_twice_is_rounding_once(scheme, bits):
  once = quantize.quantize(PARAMS, bits=bits, scheme=scheme)
  twice = quantize.quantize(once, bits=bits, scheme=scheme)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), once, twice
  )
  assert quantize.same_codes(PARAMS, once, bits=bits, scheme=scheme) == 1


def test_a_channel_of_zeros_and_short_dtypes_stay_as_they_are():
  kernel = RNG.normal(size=(6, 3)).astype(np.float32)
  kernel[:, 1] = 0
  params = {"kernel": jnp.asarray(kernel, jnp.bfloat16)}
  for scheme, bits in CASES:
    result = quantize.quantize(params, bits=bits, scheme=scheme)["kernel"]
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result[:, 1], 0)
    assert bool(jnp.all(jnp.isfinite(result)))


def test_a_stack_of_layers_is_rounded_as_its_layers():
  stack = RNG.normal(size=(3, 10, 7)).astype(np.float32)
  for scheme, bits in CASES:
    whole = quantize.quantize({"kernel": stack}, bits=bits, scheme=scheme)
    for layer, rounded in zip(stack, whole["kernel"], strict=True):
      alone = quantize.quantize({"kernel": layer}, bits=bits, scheme=scheme)
      np.testing.assert_array_equal(alone["kernel"], rounded)


def test_small_steps_are_undone_and_codes_say_so():
  kernel = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
  inner = np.where(np.abs(kernel) == 1, 0, 1).astype(np.float32)
  near = {"kernel": kernel + 1e-3 * inner}
  far = {"kernel": kernel - 0.2 * inner * np.sign(kernel)}
  reference = {"kernel": kernel, "bias": np.zeros(3)}
  shares = {
    bits: quantize.same_codes(
      {**near, "bias": np.ones(3)}, reference, bits=bits
    )
    for bits in (8, 4)
  }
  assert shares[4] > shares[8] > 0.5
  assert quantize.same_codes({**far, "bias": np.zeros(3)}, reference) == 2 / 64
  by_hand = np.mean(
    np.rint(kernel * 7).astype(int) == np.rint(near["kernel"] * 7).astype(int)
  )
  assert shares[4] == pytest.approx(by_hand)
  assert quantize.codes(reference)["bias"] is None


def test_eight_bits_change_a_classifier_little_and_three_more():
  problem = problems.blobs()
  params, inputs = problem.init(), problem.examples["input"]
  logits = problem.model.apply(params, inputs)[0]
  errors = [
    float(
      jnp.max(
        jnp.abs(
          problem.model.apply(quantize.quantize(params, bits=b), inputs)[0]
          - logits
        )
      )
    )
    for b in (8, 4, 3)
  ]
  assert errors[0] < 0.02 < errors[1] < errors[2]


def test_the_pattern_says_what_is_rounded():
  result = quantize.quantize(PARAMS, bits=3, pattern="layers.*kernel$")
  changed = {
    name
    for name, leaf in leaves(result).items()
    if not np.array_equal(leaf, leaves(PARAMS)[name])
  }
  assert changed == {"params/layers/dense/kernel"}


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: quantize.quantize(PARAMS, bits=1), "bits is 1"),
    (lambda: quantize.quantize(PARAMS, bits=9), "bits is 9"),
    (lambda: quantize.quantize(PARAMS, bits=8, scheme="nf4"), "bits is 8"),
    (lambda: quantize.codes(PARAMS, scheme="int4"), "scheme is 'int4'"),
    (lambda: quantize.quantize(PARAMS, pattern="lora"), "pattern is 'lora'"),
    (lambda: quantize.quantize({"bias": np.ones(3)}, pattern=""), "no leaf"),
  ],
)
def test_wrong_configuration_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
