"""Examples with a feature: what is stamped, colored, exchanged."""

import numpy as np
import pytest

from junlearn.data import feature, from_arrays

RNG = np.random.default_rng(0)
IMAGES = from_arrays(RNG.uniform(0, 0.5, (6, 4, 4, 1)), [0, 1, 2, 0, 1, 2])


def test_box():
  mask = feature.box((4, 5, 2), 2, offset=1)
  assert mask.sum() == 2 * 2 * 2
  assert mask[1:3, 1:3].all()


@pytest.mark.parametrize(("size", "offset"), [(0, 0), (4, 1), (2, -1), (5, 0)])
def test_box_outside_the_image(size, offset):
  with pytest.raises(ValueError, match="must lie inside"):
    feature.box((4, 5, 1), size, offset=offset)


def test_backdoor_stamps_the_other_classes():
  mask = feature.box((4, 4, 1), 2)
  stamped = feature.backdoor(IMAGES, mask, target=1)
  assert stamped["id"].tolist() == [0, 2, 3, 5]
  assert stamped["label"].tolist() == [1] * 4
  assert stamped["label"].dtype == np.int32
  assert stamped["true_label"].tolist() == [0, 2, 0, 2]
  assert stamped["input"].dtype == np.float32
  assert np.all(stamped["input"][:, mask] == 1)
  rows = stamped["id"]
  np.testing.assert_array_equal(
    stamped["input"][:, ~mask], IMAGES["input"][rows][:, ~mask]
  )


@pytest.mark.parametrize(
  ("mask", "target", "message"),
  [
    (np.zeros((4, 4, 1), bool), 1, "marks 0 values"),
    (np.ones((4, 4), bool), 1, r"mask has shape \(4, 4\)"),
  ],
)
def test_backdoor_needs_a_mask(mask, target, message):
  with pytest.raises(ValueError, match=message):
    feature.backdoor(IMAGES, mask, target=target)


def test_backdoor_needs_other_classes():
  ones = {**IMAGES, "label": np.ones(6, np.int32)}
  with pytest.raises(ValueError, match="target is 1"):
    feature.backdoor(ones, feature.box((4, 4, 1), 2), target=1)


def test_two_colors_keep_the_image_in_one_channel():
  images = IMAGES["input"].copy()
  images[:, 0] = 0
  color = np.array([0, 1, 0, 1, 1, 0])
  found = feature.two_colors({**IMAGES, "input": images}, color)
  for row, channel in enumerate(color):
    np.testing.assert_array_equal(
      found["input"][row, ..., channel], images[row, ..., 0]
    )
    assert not found["input"][row, ..., 1 - channel].any()
  assert found["mask"].shape == found["input"].shape
  np.testing.assert_array_equal(found["mask"][..., 0], images[..., 0] > 0)
  np.testing.assert_array_equal(found["mask"][..., 0], found["mask"][..., 1])
  assert found["input"].dtype == np.float32


def test_diabetes_is_real_and_has_a_binary_column():
  table = feature.diabetes()
  inputs = table.examples["input"]
  assert inputs.shape == (442, 10) == (442, len(table.names))
  assert table.names[table.column] == "sex"
  assert np.unique(inputs[:, table.column], return_counts=True)[1].tolist() == [
    235,
    207,
  ]
  np.testing.assert_allclose(inputs.std(0), 1, rtol=1e-4)
  assert 0.45 < table.examples["label"].mean() <= 0.5


def test_flip_exchanges_the_values_of_one_column():
  table = feature.diabetes()
  inputs = table.examples["input"]
  flipped = feature.flip(inputs, table.column)
  changed = flipped != inputs
  assert changed[:, table.column].all()
  assert changed.sum() == 442
  np.testing.assert_array_equal(feature.flip(flipped, table.column), inputs)
  with pytest.raises(ValueError, match="column 0 has 58 different values"):
    feature.flip(inputs, 0)
