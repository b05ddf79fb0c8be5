"""Models, losses, constants, graphs and requests that have no bound."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn.certify.derived import head_of
from junlearn.model import from_function
from tests.clients.ring import (
  CLASSES,
  L2,
  LOCAL_STEPS,
  Dense,
  bound_of,
  no_entropy,
  release,
  rows,
  setting,
  stay,
)

KEY = jax.random.key(0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["stacked", "consensus"])
def test_a_net_is_not_released(form):
  def apply(params, inputs):
    return jnp.tanh(inputs @ params["kernel"]) + params["bias"]

  case, net = setting(), from_function(apply)
  transform = release(case, form, model=net, stage=stay, entropy=no_entropy)
  with pytest.raises(ValueError, match=r"not linear .*'tanh'"):
    transform(KEY, case.params, case.request)


def squared(outputs, examples):
  target = jax.nn.one_hot(examples["label"], CLASSES)
  return jnp.sum(jnp.square(outputs - target), 1) / 2


@pytest.mark.usefixtures("x64")
def test_other_losses_are_said_to_be_convex():
  case = setting()
  bound = bound_of(case, output_loss=squared)
  with pytest.raises(ValueError, match="'squared', and convex is empty"):
    bound.check(case.params, case.request)
  said = {"output_loss": squared, "convex": "A square."}
  assert bound_of(case, **said).check(case.params, case.request)
  several = setting(local_steps=LOCAL_STEPS)
  with pytest.raises(ValueError, match="'squared'; with 3 local steps it must"):
    bound_of(several, **said).check(several.params, several.request)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weighting", ["uniform", "sample"])
def test_heads_that_are_less_smooth_than_the_records(weighting):
  """The largest `s_i |x|^2 / 2 + l2`, found and stated, in the sentence."""
  case = setting(local_steps=LOCAL_STEPS, weighting=weighting)
  retain = case.request.retain
  dense = Dense(case.training, retain)
  found = L2 + max(
    s * np.max(w * np.sum(x**2, 1)) / 2 for x, _, w, s in dense.clients
  )
  # At no params are the Hessians above it.
  rng = np.random.default_rng(3)
  for size in (0, 1, 10):
    X = size * rng.normal(size=rows(case.params).shape)
    assert max(np.linalg.norm(h, 2) for h in dense.hessians(X)) <= found
  known = {"l2": L2, "num_classes": CLASSES}
  exact = np.sqrt(2 * (found - L2))  # the norm of inputs that attains it
  enough, short = (
    case._replace(head=head_of("softmax", input_norm=exact * factor, **known))
    for factor in (1 + 1e-6, 0.9)
  )
  said = bound_of(enough).check(enough.params, enough.request)["smoothness"]
  assert f"{enough.head.values.smoothness:.6g}" in said
  stated = 0.81 * (found - L2) + L2
  with pytest.raises(
    ValueError, match=re.escape(f"smoothness {stated:.6g};")
  ) as error:
    release(short, stage=stay, entropy=no_entropy)(
      KEY, short.params, short.request
    )
  assert f"reach {found:.6g}, so" in str(error.value)
  # One step a round needs no constants, nor does a consensus.
  for other in (
    bound_of(short, form="consensus"),
    bound_of(short._replace(training=case.training._replace(local_steps=1))),
  ):
    assert "smoothness" not in other.checks


def mixed(**entries):
  """A ring's matrix, with other entries at `ij`."""
  mixing = setting().training.mixing.copy()
  for place, value in entries.items():
    mixing[int(place[1]), int(place[2])] = value
  return mixing


@pytest.mark.parametrize("form", ["stacked", "consensus"])
@pytest.mark.parametrize(
  ("mixing", "message"),
  [
    (1.02 * mixed(), r"a row that sums to 1\.02;"),
    (mixed(e00=0.5, e01=1 / 6, e30=1 / 3), r"not symmetric \(off by 0\.167\)"),
    (
      mixed(e00=0.6, e11=0.6, e01=0.1, e10=0.1, e02=-0.03, e20=-0.03),
      r"the negative entry -0\.03;",
    ),
  ],
)
def test_matrices_that_do_not_mix(form, mixing, message):
  case = setting()
  case = case._replace(training=case.training._replace(mixing=mixing))
  with pytest.raises(ValueError, match=message):
    bound_of(case, form=form)


@pytest.mark.parametrize(
  ("training", "options", "message"),
  [
    ({}, {"form": "dense"}, "form is 'dense'; it must be 'stacked' or 'cons"),
    ({}, {"tolerance": -1}, "tolerance is -1; it must be at least 0"),
    ({}, {"tolerance": np.nan}, "tolerance is nan"),
    ({}, {"tolerance": np.inf}, "tolerance is inf"),
    ({}, {"features": " "}, "features is ' '; it must say, in a sentence"),
    ({}, {"backend": "map"}, "backend is 'map'"),
    ({"local_steps": 3}, {"head": None}, "head is None; 3 local steps need"),
    (
      {"step_size": 0.0},
      {},
      r"step_size is 0\.0; it must be finite and above 0",
    ),
    ({"l2": 0.0}, {}, r"l2 is 0\.0; it must be finite and above 0"),
    ({"weighting": "samples"}, {}, "weighting is 'samples'; it must be 'unif"),
    ({"local_steps": 3, "step_size": 9.0}, {}, "contraction is .* below 1"),
  ],
)
def test_bad_arguments(training, options, message):
  case = setting()
  case = case._replace(training=case.training._replace(**training))
  with pytest.raises(ValueError, match=message):
    bound_of(case, **options)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["stacked", "consensus"])
def test_bad_requests(form):
  bound, case = bound_of(setting(4), form=form), setting(8)
  with pytest.raises(ValueError, match="mixing has 4 rows; for 8 clients"):
    bound.distance(case.params, case.request)
  transform = release(case, form, entropy=no_entropy)
  retain = case.request.retain
  half = {**retain, "weight": 0.5 * retain["weight"]}
  wrong = {**retain, "label": retain["label"] - 1}
  for part, message in (
    (None, "no retain examples"),
    (half, "has the weight 0.5"),
    (wrong, "has the label -1"),
  ):
    with pytest.raises(ValueError, match=message):
      transform(KEY, case.params, case.request._replace(retain=part))
