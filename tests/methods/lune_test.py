"""Fine-tuning on negatives: its push by hand, and where it stops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from junlearn import language, loop
from junlearn.early_stopping import StopRule
from junlearn.methods import finetune, lune
from junlearn.nn.adapters.lora import Lora
from junlearn.transform import Request, Result, chain
from tests import problems, text


def with_negatives():
  request = text.request()
  return request._replace(extra=language.alternative(request.forget))


def descend(**options):
  return text.descend(lune.transform, with_negatives(), **options)


def confidence(params):
  return np.mean(np.exp(text.means(params, text.request().forget)))


def test_the_push_on_the_logits_is_q_minus_onehot():
  logits = jax.random.normal(text.KEY, (1, 3, 5))
  examples = {
    "input": jnp.array([[2, 4, 1]]),
    "mask": jnp.array([[False, True, False]]),
  }
  gradient = jax.grad(lambda z: language.token_nll(z, examples)[0])(logits)
  q = np.asarray(jax.nn.softmax(logits[0, 0]))
  np.testing.assert_allclose(gradient[0, 0], q - np.eye(5)[4], atol=1e-6)
  np.testing.assert_array_equal(gradient[0, 1:], 0)


def test_the_first_step_learns_the_negatives_alone():
  result = descend(threshold=None)
  negatives = text.request().forget["alternative"]
  gradient = text.gradient(lambda p: text.nll(p, negatives))
  text.assert_descends(result, gradient)
  assert set(result.info["steps"]) == {"loss", "extra"}


def learned():
  """Params that know the facts."""
  forget = text.request().forget
  return text.descend(
    finetune.transform,
    Request(None, forget),
    loss=language.cross_entropy,
    num_steps=60,
    rate=0.1,
  ).params


@pytest.mark.parametrize("make_loop", [loop.scan, lambda: loop.host(every=3)])
def test_stops_once_the_true_answers_are_unlikely(make_loop):
  start = learned()
  assert confidence(start) > 0.8
  options = {"start": start, "rate": 0.3}
  result = descend(num_steps=40, every=4, loop=make_loop(), **options)
  steps = result.info["steps"]
  taken = int(steps["taken"][-1])
  assert 4 < taken < 40
  assert taken % 4 == 0
  np.testing.assert_array_equal(
    steps["taken"], np.minimum(np.arange(1, 41), taken)
  )
  # It is the plain descent of as many steps: the look before came too early,
  # and the threshold was passed between the two.
  before, between, short = (
    descend(threshold=None, num_steps=n, **options).params
    for n in (taken - 4, taken - 1, taken)
  )
  text.assert_close(result.params, short)
  assert confidence(before) >= 0.1
  assert max(confidence(between), confidence(short)) < 0.1
  np.testing.assert_allclose(steps["now"][-1], confidence(short), rtol=1e-4)


def test_stops_within_a_jitted_chain():
  def negatives(key, params, request):
    del key
    extra = language.alternative(request.forget)
    return Result(params, request._replace(extra=extra), {})

  stages = chain(
    negatives=negatives,
    lune=lune.transform(
      problems.sentences().model,
      optax.sgd(0.1),
      num_steps=40,
      batch_size=4,  # which does not divide the rows
    ),
  )
  result = jax.jit(stages)(text.KEY, learned(), text.request())
  steps = result.info["lune"]["steps"]
  assert steps["stopped"][-1]
  assert confidence(result.params) < 0.1
  np.testing.assert_allclose(
    steps["now"][-1], confidence(result.params), rtol=1e-4
  )


def test_adapters_alone_move():
  base = text.params()
  adapters = Lora("hidden|head", rank=2, alpha=4)
  transform = lune.transform(
    adapters.model(problems.sentences().model),
    optax.sgd(0.05),
    num_steps=30,
    batch_size=text.ROWS,
    threshold=None,
    view=adapters.view(),
  )
  result = transform(text.KEY, adapters.init(text.KEY, base), with_negatives())
  steps = result.info["steps"]
  assert steps["loss"][-1] < 0.5 * steps["loss"][0]
  assert np.all(steps["gradient_norm"] > 0)
  kept = adapters.drop(result.params)
  jax.tree.map(np.testing.assert_array_equal, kept, base)


def test_what_is_unknown_already_takes_no_step():
  result = descend(threshold=0.99, num_steps=3)
  jax.tree.map(np.testing.assert_array_equal, result.params, text.params())
  assert result.info["steps"]["taken"].tolist() == [0, 0, 0]


def test_an_anchor_is_an_option():
  retain = text.request().retain
  steps = descend(threshold=None, retain=language.Retain(weight=0.5)).info
  steps = steps["steps"]
  np.testing.assert_allclose(
    steps["retain"][0], text.nll(text.params(), retain), rtol=1e-5
  )
  np.testing.assert_allclose(
    steps["loss"], steps["extra"] + 0.5 * steps["retain"], rtol=1e-5
  )


def test_says_that_it_needs_negatives():
  with pytest.raises(ValueError, match="LUNE needs negatives there"):
    text.descend(lune.transform)


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_refuses_thresholds_out_of_range(threshold):
  with pytest.raises(ValueError, match=re.escape(f"threshold is {threshold}")):
    descend(threshold=threshold)


def test_a_given_rule_takes_the_place_of_the_threshold():
  """Fresh params are below the threshold, where LUNE would take no step."""
  assert int(descend(num_steps=8).info["steps"]["taken"][-1]) == 0
  rule = StopRule(
    lambda now, first: now != first,
    lambda key, params, request: optax.tree.norm(params),
    3,
  )
  steps = descend(num_steps=8, stop=rule).info["steps"]
  assert steps["taken"].tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
