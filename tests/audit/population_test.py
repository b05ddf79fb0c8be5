"""A population of references equals its members trained one by one."""

import jax
import numpy as np
import optax
import pytest

from junlearn import loop
from junlearn.audit import population
from junlearn.descent import descend
from junlearn.loss import cross_entropy
from junlearn.model import from_linen
from junlearn.nn import MLP
from junlearn.objective import weighted
from junlearn.transform import Request, stage_key

RNG = np.random.default_rng(0)
LABELS = (np.arange(24) % 3).astype(np.int32)
EXAMPLES = {
  "input": (np.eye(3)[LABELS] + RNG.normal(size=(24, 3)) / 3).astype(
    np.float32
  ),
  "label": LABELS,
  "id": np.arange(24),
}
MEMBERSHIP = (RNG.random((4, 24)) < 0.5).astype(np.int32)
MODEL = from_linen(MLP(3, hidden=()))
OPTIMIZER = optax.sgd(0.3, momentum=0.9)
KEY = jax.random.key(4)


def train(membership=MEMBERSHIP, num_steps=20, **kwargs):
  return population.train(
    KEY,
    MODEL,
    OPTIMIZER,
    EXAMPLES,
    membership,
    num_steps=num_steps,
    batch_size=6,
    **kwargs,
  )


def assert_close(a, b, rtol=1e-4, atol=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b
  )


@pytest.fixture(scope="module")
def trained():
  return train()


def test_members_are_single_runs_over_their_rows(trained):
  keys = jax.random.split(stage_key(KEY, "members"), 4)
  single = jax.jit(
    descend(
      weighted(cross_entropy(MODEL), retain=1.0),
      OPTIMIZER,
      num_steps=20,
      batch_size=6,
    )
  )
  for k in (0, 3):
    retain = {
      "input": EXAMPLES["input"],
      "label": LABELS,
      "weight": MEMBERSHIP[k].astype(np.float32),
    }
    one = single(
      keys[k], MODEL.init(keys[k], EXAMPLES["input"]), Request(None, retain)
    )
    assert_close(jax.tree.map(lambda x, k=k: x[k], trained.params), one.params)
    assert_close(trained.info["steps"]["loss"][:, k], one.info["steps"]["loss"])


@pytest.mark.parametrize(
  "kwargs",
  [{"backend": "vmap"}, {"backend": "pmap"}, {"loop": loop.host(every=7)}],
)
def test_devices_and_loops_do_not_matter(trained, kwargs):
  other = train(**kwargs)
  assert_close(trained.params, other.params, rtol=1e-5, atol=1e-6)
  assert other.info["steps"]["loss"].shape == (20, 4)


def test_members_begin_and_end_differently_and_learn(trained):
  kernels = np.asarray(trained.params["params"]["Dense_0"]["kernel"])
  assert len(np.unique(kernels.reshape(4, -1), axis=0)) == 4
  losses = np.asarray(trained.info["steps"]["loss"])
  assert np.all(losses[-5:].mean(axis=0) < 0.7 * losses[:5].mean(axis=0))


def test_rows_that_are_left_out_have_no_influence(trained):
  poisoned = np.where(MEMBERSHIP[1][:, None] == 0, 1e9, EXAMPLES["input"])
  other = population.train(
    KEY,
    MODEL,
    OPTIMIZER,
    {**EXAMPLES, "input": poisoned.astype(np.float32)},
    MEMBERSHIP,
    num_steps=20,
    batch_size=6,
  )
  first, second = (
    jax.tree.map(lambda x: x[1], result.params) for result in (trained, other)
  )
  assert_close(first, second)


@pytest.mark.parametrize("shape", [(24,), (4, 23), (24, 4)])
def test_membership_of_another_shape_is_refused(shape):
  with pytest.raises(ValueError, match=r"membership has shape"):
    train(membership=np.ones(shape))
