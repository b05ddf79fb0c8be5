"""Audits of a feature against closed forms of linear models."""

import jax
import numpy as np
import pytest
from scipy import special

from junlearn.audit import sensitivity
from junlearn.model import from_function
from tests import problems

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(30, 4)).astype(np.float32)
KERNEL = RNG.normal(size=(4, 3)).astype(np.float32)
LINEAR, PARAMS = problems.linear(KERNEL, np.ones(3, np.float32))
KEY = jax.random.key(1)


def expected(mask):
  """E |K^T M xi| / |M xi| over 200,000 draws, for a linear map K."""
  noise = np.random.default_rng(1).normal(size=(200_000, 4)) * mask
  return np.mean(
    np.linalg.norm(noise @ KERNEL, axis=1) / np.linalg.norm(noise, axis=1)
  )


@pytest.mark.parametrize("mask", [(1, 1, 0, 0), (1, 0, 1, 1), (0, 0, 0, 1)])
def test_of_a_linear_model(mask):
  """The same at every scale; of one column it is the norm of its weights."""
  mask = np.asarray(mask)
  found = [
    sensitivity.feature_sensitivity(
      KEY, LINEAR, PARAMS, INPUTS, mask, num_draws=100, sigma=sigma
    )
    for sigma in ((0.05, 1.0), (3.0, 3.0))
  ]
  # 3,000 ratios, each spread by less than half of their mean.
  np.testing.assert_allclose(found, expected(mask), rtol=3 * 0.5 / 3000**0.5)
  if mask.sum() == 1:
    norm = np.linalg.norm(KERNEL[3])
    np.testing.assert_allclose(found, norm, rtol=1e-5)


def test_masks_of_examples_and_empty_ones():
  """Examples without a mask are left out, not counted as 0."""
  mask = np.zeros((30, 4))
  mask[:10, 0] = mask[10:20, 3] = 1
  found = sensitivity.feature_sensitivity(KEY, LINEAR, PARAMS, INPUTS, mask)
  norms = np.linalg.norm(KERNEL[[0, 3]], axis=1)
  np.testing.assert_allclose(found, norms.mean(), rtol=1e-5)


def test_forms_that_do_not_change_with_the_scale_of_the_logits():
  def scaled(params, inputs):
    return 0.1 * (inputs @ params["kernel"] + params["bias"])

  mask = np.array([1, 0, 0, 0])
  found = {
    of: [
      sensitivity.feature_sensitivity(KEY, model, PARAMS, INPUTS, mask, of=of)
      for model in (LINEAR, from_function(scaled))
    ]
    for of in ("logits", "relative")
  }
  assert found["logits"][1] == pytest.approx(0.1 * found["logits"][0])
  assert found["relative"][1] == pytest.approx(found["relative"][0], rel=1e-4)
  lengths = np.linalg.norm(INPUTS @ KERNEL + 1, axis=1)
  by_hand = np.mean(np.linalg.norm(KERNEL[0]) / lengths)
  assert found["relative"][0] == pytest.approx(by_hand, rel=1e-4)


def test_on_probabilities():
  """A small perturbation of one column: softmax' Jacobian, by hand."""
  mask = np.array([0, 1, 0, 0])
  found = sensitivity.feature_sensitivity(
    KEY, LINEAR, PARAMS, INPUTS, mask, sigma=(1e-2, 1e-2), of="probabilities"
  )
  p = special.softmax(INPUTS @ KERNEL + 1, axis=1)
  moved = p * (KERNEL[1] - p @ KERNEL[1][:, None])
  by_hand = np.linalg.norm(moved, axis=1).mean()
  assert found == pytest.approx(by_hand, rel=0.01)


def test_attack_success_leaves_out_true_targets():
  logits = np.eye(3)[[0, 0, 1, 0, 2]]
  labels = np.array([0, 1, 1, 2, 2])
  assert sensitivity.attack_success(logits, labels, target=0) == 0.5
  with pytest.raises(ValueError, match="target is 0"):
    sensitivity.attack_success(logits, np.zeros(5, int), target=0)


def test_flip_rate_by_hand():
  before, after = np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[1, 1, 0, 0]]
  assert sensitivity.flip_rate(before, after) == 0.5
  assert sensitivity.flip_rate(before, before) == 0.0


def test_inversion_success_by_hand():
  own = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 1.0]])
  other = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 1.0]])
  # Likelier with the true value: yes, yes, no, tie.
  labels = np.array([0, 1, 0, 0])
  assert sensitivity.inversion_success(own, other, labels) == 2.5 / 4


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"mask": np.zeros(4)}, "mask is empty"),
    ({"mask": np.ones(3)}, r"mask has shape \(3,\)"),
    ({"num_draws": 0}, "num_draws is 0"),
    ({"sigma": (1.0, 0.1)}, "sigma is"),
    ({"of": "loss"}, "of is 'loss'"),
  ],
)
def test_wrong_arguments_are_named(options, message):
  mask = options.pop("mask", np.ones(4))
  with pytest.raises(ValueError, match=message):
    sensitivity.feature_sensitivity(
      KEY, LINEAR, PARAMS, INPUTS, mask, **options
    )
