"""Arguments out of range are refused in one sentence, the others pass."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import validate

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
  ("check", "allowed", "refused"),
  [
    (validate.positive, (1, 1e-300, np.float32(2)), (0, -1.0, INF, NAN)),
    (
      lambda **v: validate.at_least(1, **v),
      (1, 1.5, jnp.int32(7)),
      (0, 0.999, -INF, INF, NAN),
    ),
    (validate.fraction, (1e-9, 0.5, 1), (0, -0.5, 1.001, INF, NAN)),
    (
      lambda **v: validate.within("[0, 1)", **v),
      (0, 0.5, 0.999),
      (-1e-9, 1, NAN),
    ),
    (
      lambda **v: validate.within("(0, 1)", **v),
      (1e-9, 0.999),
      (0, 1, 2, NAN),
    ),
    (
      lambda **v: validate.within("[-1, inf)", **v),
      (-1, 1e300),
      (-1.5, INF, NAN),
    ),
    (
      lambda **v: validate.one_of(("mean", "sum"), **v),
      ("mean", "sum"),
      ("Mean", "", None, 0),
    ),
  ],
)
def test_what_is_allowed(check, allowed, refused):
  for value in allowed:
    check(number=value)
  for value in refused:
    with pytest.raises(ValueError, match=rf"^number is {value!r}; it must be"):
      check(number=value)


@pytest.mark.parametrize(
  ("check", "message"),
  [
    (
      lambda: validate.positive(l2=1, tolerance=-2),
      "tolerance is -2; it must be finite and above 0.",
    ),
    (
      lambda: validate.at_least(2, rows=2, columns=1),
      "columns is 1; it must be at least 2.",
    ),
    (
      lambda: validate.at_least(0, damping=INF),
      "damping is inf; it must be finite and at least 0.",
    ),
    (
      lambda: validate.fraction(threshold=2.0),
      "threshold is 2.0; it must be in (0, 1].",
    ),
    (
      lambda: validate.within("[0, 3)", client=3),
      "client is 3; it must be in [0, 3).",
    ),
    (
      lambda: validate.one_of(("vmap", "map", "pmap"), backend="loop"),
      "backend is 'loop'; it must be 'vmap', 'map' or 'pmap'.",
    ),
    (
      lambda: validate.one_of(("vmap",), backend="loop"),
      "backend is 'loop'; it must be 'vmap'.",
    ),
  ],
)
def test_the_first_that_is_out_of_range_is_named(check, message):
  with pytest.raises(ValueError) as caught:
    check()
  assert str(caught.value) == message


def test_what_is_traced_passes():
  """Its value is known only when the program runs."""

  @jax.jit
  def double(x):
    validate.positive(x=x)
    validate.at_least(5, x=x)
    validate.within("[5, 6)", x=x)
    return 2 * x

  assert double(-1.0) == -2


@pytest.mark.parametrize("text", ["1", b"1", "many"])
def test_text_is_no_number(text):
  with pytest.raises(TypeError, match=r"epsilon is .*; it must be a number\."):
    validate.positive(epsilon=text)
