"""Convolutions against XLA and a dense matrix; the networks' structure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from junlearn.nn import CNN, MLP, ResNet, ResNet18
from junlearn.nn.vision import cnn, resnet
from junlearn.nn.vision.conv import conv_general_dilated, matmul_conv

KEY = jax.random.key(0)
NHWC = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def xla(inputs, kernel, strides, padding, **kwargs):
  return jax.lax.conv_general_dilated(
    inputs, kernel, strides, padding, dimension_numbers=NHWC, **kwargs
  )


def value_and_grads(conv, strides, padding):
  """Outputs and gradients of both arguments, mapped over kernels."""

  def energy(inputs, kernel):
    outputs = conv(inputs, kernel, strides, padding)
    return jnp.sum(jnp.sin(outputs)), outputs

  one = jax.value_and_grad(energy, (0, 1), has_aux=True)
  return jax.jit(jax.vmap(one, (None, 0)))


@pytest.mark.parametrize(
  ("size", "window", "strides", "padding"),
  [
    ((6, 7), (3, 3), (1, 1), "SAME"),
    ((6, 7), (3, 3), (2, 2), "SAME"),
    ((7, 6), (3, 3), (1, 1), "VALID"),
    ((7, 6), (3, 3), (2, 2), "VALID"),
    ((6, 7), (1, 1), (2, 2), "SAME"),
    ((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((5, 9), (3, 1), (1, 2), ((0, 2), (1, 0))),
    ((5, 9), (2, 3), (3, 2), "SAME"),
  ],
)
def test_matmul_conv_equals_xla(size, window, strides, padding):
  inputs = normal(0, 2, *size, 3)
  kernels = normal(1, 2, *window, 3, 4)
  ours = value_and_grads(matmul_conv, strides, padding)(inputs, kernels)
  theirs = value_and_grads(xla, strides, padding)(inputs, kernels)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    ours,
    theirs,
  )


def test_matmul_conv_is_its_explicit_matrix():
  # 4x4 image, 3x3 kernel, stride 2, SAME: 2x2 outputs; padding is 0 before
  # and 1 after, as TensorFlow and XLA define SAME.
  image = np.asarray(normal(2, 4, 4))
  kernel = np.asarray(normal(3, 3, 3))
  matrix = np.zeros((4, 16))
  for output, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
    for i in range(3):
      for j in range(3):
        if row + i < 4 and column + j < 4:
          matrix[output, 4 * (row + i) + column + j] = kernel[i, j]
  outputs = matmul_conv(
    image[None, :, :, None], kernel[:, :, None, None], (2, 2), "SAME"
  )
  assert outputs.shape == (1, 2, 2, 1)
  np.testing.assert_allclose(
    outputs.ravel(), matrix @ image.ravel(), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("kernel", "kwargs"),
  [
    ((3, 3, 4, 6), {"rhs_dilation": (2, 2)}),
    ((3, 3, 4, 6), {"lhs_dilation": (2, 1)}),
    ((3, 3, 2, 6), {"feature_group_count": 2}),
  ],
)
def test_dilation_and_groups_are_left_to_xla(kernel, kwargs):
  inputs, kernel = normal(0, 2, 7, 7, 4), normal(1, *kernel)
  padding = ((1, 2), (0, 1))
  outputs = conv_general_dilated(
    inputs, kernel, (1, 1), padding, dimension_numbers=NHWC, **kwargs
  )
  expected = xla(inputs, kernel, (1, 1), padding, **kwargs)
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_one_dimension_is_left_to_xla():
  inputs, kernel = normal(0, 2, 9, 3), normal(1, 3, 3, 5)
  numbers = ("NWC", "WIO", "NWC")
  outputs = conv_general_dilated(
    inputs, kernel, (2,), "SAME", dimension_numbers=numbers
  )
  expected = jax.lax.conv_general_dilated(
    inputs, kernel, (2,), "SAME", dimension_numbers=numbers
  )
  np.testing.assert_array_equal(outputs, expected)


def primitives(function, *arguments):
  text = str(jax.make_jaxpr(function)(*arguments))
  return {
    name for name in ("dot_general", "conv_general_dilated") if name in text
  }


def test_plain_convolutions_are_matrix_products_on_cpu():
  convolve = functools.partial(
    conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=NHWC,
  )
  arguments = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
  assert primitives(convolve, *arguments) == {"dot_general"}
  dilated = functools.partial(convolve, rhs_dilation=(2, 2))
  assert primitives(dilated, *arguments) == {"conv_general_dilated"}


def test_other_layouts_are_left_to_xla():
  inputs, kernel = normal(0, 4, 4, 4, 4), normal(1, 4, 4, 4, 4)
  numbers = ("NCHW", "OIHW", "NCHW")
  outputs = conv_general_dilated(
    inputs, kernel, (1, 1), "SAME", dimension_numbers=numbers
  )
  expected = jax.lax.conv_general_dilated(
    inputs, kernel, (1, 1), "SAME", dimension_numbers=numbers
  )
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def shapes(module, *size):
  """Shapes of the variables for images of a size, without computing."""
  variables = jax.eval_shape(module.init, KEY, jnp.zeros((1, *size)))
  return jax.tree.map(lambda leaf: leaf.shape, variables)


def count(variables):
  is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
  leaves = jax.tree.leaves(variables["params"], is_leaf=is_shape)
  return sum(int(np.prod(shape)) for shape in leaves)


def test_mlp_structure():
  assert shapes(MLP(3, hidden=(5,)), 2, 2, 1) == {
    "params": {
      "Dense_0": {"kernel": (4, 5), "bias": (5,)},
      "Dense_1": {"kernel": (5, 3), "bias": (3,)},
    }
  }
  assert set(shapes(MLP(3, hidden=()), 4)["params"]) == {"Dense_0"}


def test_mlp_by_hand():
  inputs = normal(0, 6, 2, 2)
  module = MLP(3, hidden=(5,))
  variables = module.init(KEY, inputs)
  first, last = (variables["params"][f"Dense_{i}"] for i in range(2))
  hidden = np.maximum(np.asarray(inputs).reshape(6, 4) @ first["kernel"], 0)
  np.testing.assert_allclose(
    module.apply(variables, inputs),
    hidden @ last["kernel"],
    rtol=1e-4,
    atol=1e-5,
  )


def test_cnn_structure():
  variables = shapes(CNN(10), 8, 8, 1)
  assert set(variables) == {"params"}
  assert variables["params"] == {
    "Conv_0": {"kernel": (3, 3, 1, 16), "bias": (16,)},
    "Conv_1": {"kernel": (3, 3, 16, 32), "bias": (32,)},
    "Dense_0": {"kernel": (2 * 2 * 32, 64), "bias": (64,)},
    "Dense_1": {"kernel": (64, 10), "bias": (10,)},
  }


def test_resnet18_for_cifar_has_the_published_size():
  variables = shapes(ResNet18(10), 32, 32, 3)
  # The CIFAR ResNet-18 of the PyTorch repositories: 11,173,962 weights.
  assert count(variables) == 11_173_962
  params, statistics = variables["params"], variables["batch_stats"]
  # Stem, 16 convolutions in blocks and 3 projections.
  assert sum(name.startswith("Conv") for name in params) == 20
  assert sum(name.startswith("BatchNorm") for name in statistics) == 20
  assert params["Dense_0"]["kernel"] == (512, 10)
  assert params["Conv_0"] == {"kernel": (3, 3, 3, 64)}


def test_resnet_without_normalisation_has_biases_and_no_statistics():
  module = ResNet(10, stages=(1, 1), features=4, normalize=False)
  variables = shapes(module, 8, 8, 3)
  assert set(variables) == {"params"}
  assert variables["params"]["Conv_0"] == {"kernel": (3, 3, 3, 4), "bias": (4,)}


SMALL = {
  "cnn": (cnn, CNN(4, features=(3, 5), hidden=6)),
  "resnet": (resnet, ResNet(4, stages=(1, 1), features=3)),
}


def random_variables(module, images):
  """Variables without compiling `init`; all positive, so variances too."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.random(leaf.shape, np.float32) + 0.1,
    jax.eval_shape(module.init, KEY, images),
  )


@pytest.mark.parametrize("name", SMALL)
def test_networks_are_the_same_with_xla_convolutions(name, monkeypatch):
  source, module = SMALL[name]
  images = normal(5, 3, 9, 8, 2)
  variables = random_variables(module, images)
  ours = jax.jit(lambda v: module.apply(v, images))(variables)
  monkeypatch.setattr(
    source, "conv_general_dilated", jax.lax.conv_general_dilated
  )
  theirs = jax.jit(lambda v: module.apply(v, images))(variables)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
  assert "conv_general_dilated" in primitives(module.apply, variables, images)


def test_resnet_refreshes_statistics_in_training_mode_only():
  module = ResNet(4, stages=(1,), features=3)
  images = 3 + normal(6, 4, 8, 8, 2)
  variables = random_variables(module, images)

  @jax.jit
  def statistics(variables):
    return tuple(
      module.apply(variables, images, train=train, mutable=["batch_stats"])[1]
      for train in (False, True)
    )

  before = variables["batch_stats"]
  same, after = (each["batch_stats"] for each in statistics(variables))
  jax.tree.map(np.testing.assert_array_equal, before, same)
  jax.tree.map(lambda a, b: np.testing.assert_(np.any(a != b)), before, after)

  # The stem's statistics are a running mean of its batch: 0.9, 0.1.
  stem = linen.Conv(3, (3, 3), use_bias=False)
  hidden = stem.apply({"params": variables["params"]["Conv_0"]}, images)
  np.testing.assert_allclose(
    after["BatchNorm_0"]["mean"],
    0.9 * before["BatchNorm_0"]["mean"] + 0.1 * np.mean(hidden, axis=(0, 1, 2)),
    rtol=1e-3,
    atol=1e-4,
  )
  np.testing.assert_allclose(
    after["BatchNorm_0"]["var"],
    0.9 * before["BatchNorm_0"]["var"] + 0.1 * np.var(hidden, axis=(0, 1, 2)),
    rtol=1e-3,
  )
