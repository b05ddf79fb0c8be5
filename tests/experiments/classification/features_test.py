"""Inputs of certified classifiers, and what their experiments share."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import linen

from experiments.classification import features
from experiments.classification.recipe import MODELS
from experiments.release import attack
from experiments.release.inputs import unit_norm
from experiments.release.requests import successive
from junlearn import nn, tree
from junlearn.model import from_linen
from junlearn.storage import checkpoint
from tests.experiments.toy_images import examples, toy


@pytest.fixture
def dataset():
  return toy()


def test_unit_norm(dataset):
  dataset.train["input"][5] = 0
  for part, norms in (("train", 1.0), ("test", 1.0)):
    found = unit_norm(getattr(dataset, part))["input"]
    images = getattr(dataset, part)["input"].reshape(len(found), -1)
    assert found.dtype == np.float64
    expected = np.full(len(found), norms)
    expected[~images.any(1)] = 0
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), expected)
    cosine = np.sum(found * images, 1)
    np.testing.assert_allclose(cosine, np.linalg.norm(images, axis=1), 1e-6)


@pytest.mark.parametrize(
  "module",
  [
    nn.MLP(5),
    nn.CNN(5, features=(4,)),
    nn.ResNet(5, stages=(1,), features=4),
  ],
)
def test_features_are_what_the_head_reads(module, x64):
  images = examples(4, 0, side=8)["input"]
  params = jax.tree.map(
    lambda leaf: leaf.astype(np.float64),
    jax.jit(from_linen(module).init)(jax.random.key(1), images),
  )
  dense = {k: v for k, v in params["params"].items() if "Dense" in k}
  head = dense[max(dense)]
  images = images.astype(np.float64)
  found = features.last_inputs(module)(params, images)
  np.testing.assert_allclose(
    found @ head["kernel"] + head["bias"], module.apply(params, images), 1e-12
  )


def test_the_last_dense_is_that_called_last():
  class Twice(linen.Module):
    def setup(self):
      self.after = linen.Dense(2)
      self.before = linen.Dense(4)

    def __call__(self, x):
      return self.after(self.before(x))

  x = np.ones((3, 5), np.float32)
  params = Twice().init(jax.random.key(0), x)
  assert features.last_inputs(Twice())(params, x).shape == (3, 4)


def net(folder, images=3, classes=7, **changes):
  """The folder of a run whose net was trained elsewhere."""
  flags = {"model": "mlp", "dataset": "other", "certify": None, **changes}
  folder.mkdir(exist_ok=True)
  (folder / "config.json").write_text(json.dumps({"flags": flags}))
  module = MODELS["mlp"](num_classes=classes)
  inputs = np.zeros((1, images, images, 1), np.float32)
  params = from_linen(module).init(jax.random.key(0), inputs)
  checkpoint.save(folder / "checkpoints/seed0/original", params)
  return params


def test_features_of_a_run(tmp_path, dataset, x64):
  params = net(tmp_path)
  found, told = features.of_run(dataset, tmp_path)
  first = params["params"]["Dense_0"]
  x = dataset.test["input"].reshape(20, -1).astype(np.float64)
  hidden = np.maximum(
    x @ np.float64(first["kernel"]) + np.float64(first["bias"]), 0
  )
  hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
  np.testing.assert_allclose(found.test["input"], hidden, 1e-12, 1e-15)
  assert found.test["input"].dtype == np.float64
  np.testing.assert_array_equal(found.train["id"], dataset.train["id"])
  for words in ("mlp", "other", "toy", tree.digest(params)):
    assert words in told


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"dataset": "toy"}, "trained on toy, .*; features must come from other"),
    ({"dataset": "toy:1.0.0"}, r"trained on toy:1\.0\.0, .*from other data"),
    ({"dataset": "toy/small"}, "trained on toy/small, .*from other data"),
    ({"dataset": None}, r"is no run of experiments\.classification that tr"),
    ({"model": "linear"}, r"is no run of experiments\.classification that tr"),
    ({"certify": True}, r"is no run of experiments\.classification that tr"),
    ({"model": "cnn"}, "reads images of another shape than those of toy"),
    ({"images": 4}, r"of another shape than those of toy, \(3, 3, 1\)"),
  ],
)
def test_features_that_are_refused(tmp_path, dataset, changes, words):
  net(tmp_path, **changes)
  with pytest.raises(ValueError, match=words) as caught:
    features.of_run(dataset, tmp_path)
  assert "\n" not in str(caught.value)


def test_damaged_nets_are_refused(tmp_path, dataset):
  with pytest.raises(ValueError, match="it is not a run's folder"):
    features.of_run(dataset, tmp_path / "none")
  net(tmp_path)
  folder = tmp_path / "checkpoints/seed0/original"
  content = json.loads((folder / "sha256.json").read_text())
  content["sha256"] = "0" * 64
  (folder / "sha256.json").write_text(json.dumps(content))
  with pytest.raises(checkpoint.CheckpointError, match="is damaged"):
    features.of_run(dataset, tmp_path)
  shutil.rmtree(folder / "tree")
  with pytest.raises(checkpoint.CheckpointError, match="is damaged"):
    features.of_run(dataset, tmp_path)
  shutil.rmtree(folder)
  with pytest.raises(checkpoint.CheckpointError, match="no complete checkp"):
    features.of_run(dataset, tmp_path)


def test_successive():
  found = [part.tolist() for part in successive(np.arange(5), 3)]
  assert found == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
  with pytest.raises(ValueError, match="6 requests were asked for; with 5"):
    successive(np.arange(5), 6)


def test_attack_auc():
  forget, test = np.array([0.9, 0.5, 0.1]), np.array([0.5, 0.2])
  pairs = [(a > b) + (a == b) / 2 for a in forget for b in test]
  assert attack.auc(forget, test) == pytest.approx(np.mean(pairs))
