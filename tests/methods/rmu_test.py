"""Misdirected activations, in NumPy."""

import jax
import numpy as np
import pytest

from junlearn.methods import rmu
from tests import problems, text


def make(model, optimizer, **options):
  del model
  return rmu.transform(problems.features, optimizer, **options)


def distances(params, examples, target):
  """`(1/d) |h_t - target_t|^2` of each answer's tokens, one array a row."""
  h = np.asarray(problems.features(params, examples["input"]), np.float64)
  each = ((h - target) ** 2).mean(axis=-1)
  masks = np.asarray(examples["mask"])
  return [row[mask] for row, mask in zip(each, masks, strict=True)]


@pytest.mark.parametrize("separate_means", [False, True])
def test_both_terms_of_two_steps(separate_means):
  options = {
    "coefficient": 3.0,
    "gamma": 0.5,
    "alpha": 2.0,
    "separate_means": separate_means,
  }
  forget, retain, _ = text.request()
  first = text.descend(make, **options)
  result = text.descend(make, num_steps=2, **options)
  u = np.asarray(result.info["direction"]["direction"])
  target = 3 * u / np.linalg.norm(u)
  anchor = np.asarray(problems.features(text.params(), retain["input"]))

  def average(rows):
    if separate_means:
      sums, shares = zip(*((r.sum(), 1 / r.size) for r in rows), strict=True)
      return np.mean(sums) * np.mean(shares)
    return np.mean([r.mean() for r in rows])

  for step, params in enumerate((text.params(), first.params)):
    of_forget = average(distances(params, forget, target))
    of_retain = average(distances(params, retain, anchor))
    assert (of_retain > 1e-3) == (step == 1)
    steps = {k: v[step] for k, v in result.info["descend"]["steps"].items()}
    np.testing.assert_allclose(steps["extra"], of_forget, rtol=1e-4)
    np.testing.assert_allclose(steps["retain"], of_retain, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
      steps["loss"], 0.5 * of_forget + 2 * of_retain, rtol=1e-4
    )


def test_the_layers_above_learn_nothing():
  after = text.descend(make, num_steps=2).params["params"]
  before = text.params()["params"]
  jax.tree.map(np.testing.assert_array_equal, after["head"], before["head"])
  assert not np.array_equal(
    after["hidden"]["kernel"], before["hidden"]["kernel"]
  )


def direction(key, kind):
  stage = rmu.steer(problems.features, coefficient=2.0, direction=kind)
  return stage(key, text.params(), text.request())


def test_one_target_of_the_given_length_for_all_rows():
  for kind in ("uniform", "normal"):
    target = direction(text.KEY, kind).request.extra["target"]
    assert target.shape == (text.ROWS, 32)
    np.testing.assert_allclose(np.linalg.norm(target, axis=1), 2, rtol=1e-5)
    assert np.all(np.ptp(target, axis=0) == 0)


def test_uniform_directions_are_alike_and_normal_ones_are_not():
  """Cosine E[r]^2 / E[r^2] = 3/4 of the positive quadrant, and 0."""
  for kind, cosine in (("uniform", 0.75), ("normal", 0.0)):
    units = np.stack(
      [
        np.asarray(direction(key, kind).request.extra["target"][0]) / 2
        for key in jax.random.split(text.KEY, 40)
      ]
    )
    pairs = (units @ units.T)[np.triu_indices(40, 1)]
    assert np.mean(pairs) == pytest.approx(cosine, abs=0.03)
    assert np.all(units >= 0) == (kind == "uniform")


def test_refuses_other_directions():
  with pytest.raises(ValueError, match="direction is 'gauss'; it must be"):
    text.descend(make, direction="gauss")
