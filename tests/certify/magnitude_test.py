"""Moduli of terms against sums written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.certify import magnitude
from junlearn.model import from_function

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3))
TERMS = np.abs(X) @ np.abs(W)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("apply", "expected"),
  [
    (lambda w, x: x @ w, TERMS),
    (lambda w, x: (x @ w + 1e12) - 1e12, TERMS + 2e12),
    (lambda w, x: 1e9 * (x @ w) - (1e9 - 1) * (x @ w), (2e9 - 1) * TERMS),
    (lambda w, x: (x @ -w) / -2 - jnp.tanh(x)[:, :3],
     TERMS / 2 + np.abs(np.tanh(X))[:, :3]),
    (lambda w, x: jax.jit(lambda a: -(x @ a))(w), TERMS),
    (jax.checkpoint(lambda w, x: jnp.where(x[:, :3] > 0, x @ w, 0)),
     np.where(X[:, :3] > 0, TERMS, 0)),
    (lambda w, x: jnp.concatenate([x @ w, -(x @ w)], 1),
     np.concatenate([TERMS, TERMS], 1)),
  ],
)  # fmt: skip
def test_every_term_counts(apply, expected):
  model = from_function(apply)
  found = magnitude.outputs(model, jnp.asarray(W), jnp.asarray(X))
  np.testing.assert_allclose(found(jnp.abs(W)), expected, rtol=1e-14)
