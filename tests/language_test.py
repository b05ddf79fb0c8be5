"""Losses of sequences against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from junlearn import language, objective
from junlearn.language import Retain
from junlearn.model import from_function
from junlearn.transform import Request

KEY = jax.random.key(2)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 7, (3, 5)).astype(np.int32)
# Answers of one, three and two tokens.
MASK = np.array([[0, 0, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], bool)
LENGTHS = MASK.sum(axis=1)
EXAMPLES = {"input": jnp.asarray(TOKENS), "mask": jnp.asarray(MASK)}
LOGITS = RNG.normal(0, 2, (3, 5, 7)).astype(np.float32)
OTHERS = LOGITS + RNG.normal(0, 1, LOGITS.shape).astype(np.float32)


def table():
  """A model whose logits are its params, whatever it reads."""
  return from_function(lambda params, inputs: params)


def log_probs():
  """`s_t` by hand, `[n, length - 1]`, 0 outside the answers."""
  found = np.zeros((3, 4))
  for row, t in np.argwhere(MASK):
    found[row, t - 1] = log_softmax(LOGITS[row, t - 1])[TOKENS[row, t]]
  return found


def divergences():
  """KL(others || logits) at all positions, `[n, length]`."""
  new, old = (softmax(z.astype(np.float64), axis=-1) for z in (LOGITS, OTHERS))
  return rel_entr(old, new).sum(axis=-1)


def test_log_probs_by_hand():
  np.testing.assert_allclose(
    language.token_log_probs(LOGITS, EXAMPLES), log_probs(), rtol=1e-5
  )
  np.testing.assert_array_equal(language.num_targets(EXAMPLES), LENGTHS)


def test_three_means():
  sums = -log_probs().sum(axis=1)
  for loss, expected in (
    (language.sequence_nll, sums),
    (language.mean_nll, sums / LENGTHS),
    (language.token_nll, sums / LENGTHS.mean()),
  ):
    np.testing.assert_allclose(loss(LOGITS, EXAMPLES), expected, rtol=1e-5)
  by_token, by_row = (
    float(objective.mean(loss(LOGITS, EXAMPLES), EXAMPLES))
    for loss in (language.token_nll, language.mean_nll)
  )
  assert by_token == pytest.approx(sums.sum() / LENGTHS.sum(), rel=1e-5)
  assert by_token != pytest.approx(by_row, rel=1e-2)


def test_absent_rows_do_not_count():
  examples = {**EXAMPLES, "weight": jnp.array([0, 1, 1])}
  mean = objective.mean(language.token_nll(LOGITS, examples), examples)
  expected = -log_probs()[1:].sum() / LENGTHS[1:].sum()
  assert float(mean) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("answers", [0, 1])
def test_rows_without_an_answer(answers):
  """One answer token in three rows, or none: a mean length below 1."""
  mask = np.zeros_like(MASK)
  mask[0, 2] = answers
  examples = {**EXAMPLES, "mask": jnp.asarray(mask)}
  expected = -log_probs()[0].sum() * answers
  mean = objective.mean(language.token_nll(LOGITS, examples), examples)
  assert float(mean) == pytest.approx(expected, rel=1e-5)
  assert np.isfinite(language.mean_nll(LOGITS, examples)).all()


def test_padding_on_the_right_changes_nothing():
  wider = {
    "input": jnp.pad(EXAMPLES["input"], ((0, 0), (0, 3))),
    "mask": jnp.pad(EXAMPLES["mask"], ((0, 0), (0, 3))),
  }
  logits = np.concatenate([LOGITS, 100 * OTHERS[:, :3]], axis=1)
  for loss in (language.sequence_nll, language.mean_nll, language.token_nll):
    np.testing.assert_allclose(
      loss(logits, wider), loss(LOGITS, EXAMPLES), rtol=1e-6
    )


def test_packed_rows_have_the_same_mean_over_tokens():
  """Two records in one row and the third with padding in another."""

  def pack(values):
    rest = np.zeros_like(values[0])
    return np.stack(
      [np.concatenate(values[:2]), np.concatenate([values[2], rest])]
    )

  tokens = jnp.asarray(pack(TOKENS))
  packed = {
    "input": {"tokens": tokens, "positions": tokens, "segments": tokens},
    "mask": jnp.asarray(pack(MASK)),
  }
  np.testing.assert_array_equal(language.tokens(packed), tokens)
  np.testing.assert_allclose(
    np.mean(language.token_nll(pack(LOGITS), packed)),
    np.mean(language.token_nll(LOGITS, EXAMPLES)),
    rtol=1e-6,
  )


def test_half_precision_is_summed_in_single():
  logits = jnp.asarray(LOGITS, jnp.bfloat16)
  for loss in (language.sequence_nll, language.mean_nll, language.token_nll):
    half = loss(logits, EXAMPLES)
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(
      half, loss(logits.astype(jnp.float32), EXAMPLES)
    )


def test_double_precision_stays(x64):
  logits = jnp.asarray(LOGITS, jnp.float64)
  assert logits.dtype == jnp.float64
  for loss in (language.sequence_nll, language.mean_nll, language.token_nll):
    assert loss(logits, EXAMPLES).dtype == jnp.float64
  np.testing.assert_allclose(
    language.token_log_probs(logits, EXAMPLES), log_probs(), rtol=1e-7
  )


def test_divergence_equals_scipy():
  each = divergences()
  losses, _ = language.kl(table())(LOGITS, OTHERS, EXAMPLES)
  expected = each[:, :-1][MASK[:, 1:]].mean()
  assert float(jnp.mean(losses)) == pytest.approx(expected, rel=1e-5)
  losses, _ = language.kl(table(), all_positions=True)(LOGITS, OTHERS, EXAMPLES)
  assert float(jnp.mean(losses)) == pytest.approx(each.mean(), rel=1e-5)


def test_divergence_is_flat_at_the_reference():
  loss = language.kl(table())
  value, slope = jax.value_and_grad(
    lambda z: jnp.mean(loss(z, LOGITS, EXAMPLES)[0])
  )(jnp.asarray(LOGITS))
  assert float(value) == pytest.approx(0, abs=1e-6)
  np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_the_reference_has_no_gradient():
  loss = language.kl(table())
  slope = jax.grad(lambda z: jnp.mean(loss(LOGITS, z, EXAMPLES)[0]))(
    jnp.asarray(OTHERS)
  )
  np.testing.assert_array_equal(slope, 0)


def fixed(params, batch, *, reference, key):
  del batch, reference, key
  return 2.5, (params, {"forget": 2.5})


@pytest.mark.parametrize(
  ("retain", "expected"),
  [
    (Retain(weight=2.0), lambda: -log_probs().sum() / LENGTHS.sum()),
    (
      Retain(weight=2.0, loss="kl"),
      lambda: divergences()[:, :-1][MASK[:, 1:]].mean(),
    ),
    (Retain(2.0, "kl", all_positions=True), lambda: divergences().mean()),
  ],
)
def test_the_retain_term_is_added(retain, expected):
  total = language.with_retain(fixed, table(), retain)
  loss, (params, terms) = total(
    LOGITS, Request(None, EXAMPLES), reference=OTHERS, key=KEY
  )
  assert params is LOGITS
  assert float(terms["retain"]) == pytest.approx(expected(), rel=1e-5)
  assert float(loss) == pytest.approx(2.5 + 2 * expected(), rel=1e-5)
  assert terms["forget"] == 2.5


@pytest.mark.parametrize("retain", [None, Retain(weight=0.0)])
def test_no_retain_term(retain):
  assert language.with_retain(fixed, table(), retain) is fixed


@pytest.mark.parametrize(
  ("retain", "message"),
  [
    (Retain(weight=-1.0), r"weight is -1\.0; it must be at least 0"),
    (Retain(weight=float("nan")), "weight is nan"),
    (Retain(loss="mse"), "loss is 'mse'; it must be 'nll' or 'kl'"),
    (Retain(0.0, "mse"), "loss is 'mse'"),
  ],
)
def test_bad_retain_terms_are_refused(retain, message):
  with pytest.raises(ValueError, match=message):
    language.with_retain(fixed, table(), retain)


def test_alternative_answers_replace_the_examples_own():
  other = {"input": EXAMPLES["input"] + 1, "mask": ~EXAMPLES["mask"]}
  examples = {**EXAMPLES, "weight": jnp.ones(3), "alternative": other}
  found = language.alternative(examples)
  assert set(found) == {"input", "mask", "weight"}
  assert found["input"] is other["input"]
  assert found["mask"] is other["mask"]
  assert found["weight"] is examples["weight"]
  with pytest.raises(ValueError, match="have no `alternative`"):
    language.alternative(EXAMPLES)


def embedding():
  """A model of each token by itself, that tells training from evaluation."""
  model = from_function(lambda params, tokens: params[tokens])

  def apply(params, inputs, key=None):
    assert key is None, "evaluation has no key"
    return model.apply(params, inputs)

  return model._replace(apply=apply)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_losses_are_each_example_s_own(batch_size):
  """Batches that do not divide the rows, or are larger than them."""
  params = jnp.asarray(RNG.normal(size=(7, 7)).astype(np.float32))
  loss = language.cross_entropy(embedding(), language.mean_nll)
  expected, _ = loss(params, EXAMPLES)
  found = language.losses(loss, params, EXAMPLES, batch_size=batch_size)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_reference_is_kept_beside_the_examples():
  params = jnp.asarray(RNG.normal(size=(7, 7)).astype(np.float32))
  loss = language.cross_entropy(embedding(), language.sequence_nll)
  found = language.with_reference(loss, params, EXAMPLES, batch_size=2)
  assert set(found) == {"input", "mask", "reference"}
  np.testing.assert_allclose(
    found["reference"], loss(params, EXAMPLES)[0], rtol=1e-6
  )
