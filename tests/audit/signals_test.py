"""Signals against hand-computed rows and naive second implementations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from junlearn.audit import signals

SOFTMAX_SIGNALS = (
  signals.correctness,
  signals.margin,
  signals.confidence,
  signals.loss,
  signals.entropy,
  signals.modified_entropy,
  signals.released_modified_entropy,
)
ALL_SIGNALS = (
  *SOFTMAX_SIGNALS,
  signals.taylor_softmargin,
  signals.taylor_clipped,
)

# Six examples of three classes, given by their probabilities.
PROBABILITIES = np.array(
  [
    [1 / 2, 1 / 4, 1 / 4],
    [1 / 2, 1 / 4, 1 / 4],
    [1 / 3, 1 / 3, 1 / 3],
    [1 / 8, 1 / 8, 3 / 4],
    [1 / 10, 8 / 10, 1 / 10],
    [1 / 10, 8 / 10, 1 / 10],
  ]
)
LABELS = np.array([0, 2, 0, 2, 1, 0])


def naive_modified_entropy(p, y):
  total = -(1 - p[y]) * math.log(p[y])
  for i, p_i in enumerate(p):
    if i != y:
      total -= p_i * math.log(1 - p_i)
  return total


def random_outputs(seed, n=50, classes=7, scale=3.0):
  rng = np.random.default_rng(seed)
  return scale * rng.normal(size=(n, classes)), rng.integers(classes, size=n)


@st.composite
def outputs(draw):
  n, classes = draw(st.integers(1, 5)), draw(st.integers(2, 5))
  logits = draw(
    hnp.arrays(np.float64, (n, classes), elements=st.floats(-60, 60))
  )
  labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
  return logits, labels


def test_six_examples_by_hand():
  logits = np.log(PROBABILITIES)
  ln2, ln3 = math.log(2), math.log(3)
  np.testing.assert_array_equal(
    signals.correctness(logits, LABELS), [1, 0, 1, 1, 1, 0]
  )
  np.testing.assert_allclose(
    signals.confidence(logits, LABELS), [1 / 2, 1 / 4, 1 / 3, 3 / 4, 0.8, 0.1]
  )
  np.testing.assert_allclose(
    signals.margin(logits, LABELS),
    [0, -ln3, -ln2, ln3, math.log(4), -math.log(9)],
    atol=1e-15,
  )
  np.testing.assert_allclose(
    signals.loss(logits, LABELS)[:4],
    [ln2, 2 * ln2, ln3, 2 * ln2 - ln3],
  )
  np.testing.assert_allclose(
    signals.entropy(logits, LABELS)[:3], [1.5 * ln2, 1.5 * ln2, ln3]
  )
  np.testing.assert_allclose(
    signals.modified_entropy(logits, LABELS)[:2],
    [
      0.5 * ln2 - 0.5 * math.log(3 / 4),
      0.75 * 2 * ln2 + 0.5 * ln2 - 0.25 * math.log(3 / 4),
    ],
  )


def test_modified_entropy_is_the_row_by_row_definition():
  logits, labels = random_outputs(0)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  expected = [
    naive_modified_entropy(*row) for row in zip(p, labels, strict=True)
  ]
  np.testing.assert_allclose(
    signals.modified_entropy(logits, labels), expected, rtol=1e-12
  )


def test_released_modified_entropy_is_the_released_code():
  logits, labels = random_outputs(1)
  labels = np.where(labels == 3, 4, labels)  # class 3 is in no label
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  weight, log = p.copy(), np.log(p)
  weight[:, labels] = (1 - p)[:, labels]
  released = signals.released_modified_entropy(logits, labels)
  np.testing.assert_allclose(released, -np.sum(weight * log, -1), rtol=1e-12)
  # The defect: one row's own label makes no difference.
  other = labels.copy()
  other[0] = other[1]
  np.testing.assert_allclose(
    signals.released_modified_entropy(logits, other)[0], released[0]
  )
  assert not np.allclose(released, signals.modified_entropy(logits, labels))


def test_extreme_probabilities_keep_their_digits():
  logits = np.array([[1000.0, 0.0, 0.0], [80.0, 0.0, 0.0]])
  right, wrong = np.array([0, 0]), np.array([1, 1])
  np.testing.assert_allclose(
    signals.margin(logits, right), [1000 - math.log(2), 80 - math.log(2)]
  )
  np.testing.assert_allclose(
    signals.loss(logits, right)[1], 2 * math.exp(-80), rtol=1e-12
  )
  # -p log(1-p) of the wrong sure class, plus the confidence term of p_y ~ 0.
  np.testing.assert_allclose(
    signals.modified_entropy(logits, wrong),
    [1000 + 1000 - math.log(2), 80 + 80 - math.log(2)],
  )
  np.testing.assert_allclose(
    signals.entropy(logits, right)[1], 2 * math.exp(-80) * 81, rtol=1e-9
  )
  for signal in ALL_SIGNALS:
    assert np.isfinite(signal(logits, right)).all()


@pytest.mark.parametrize("signal", SOFTMAX_SIGNALS)
@settings(deadline=None)
@given(given_outputs=outputs(), shift=st.floats(-30, 30))
def test_softmax_signals_ignore_a_shift(signal, given_outputs, shift):
  logits, labels = given_outputs
  # Rounding of the shifted logits may turn near-ties.
  logits = np.round(logits, 3)
  shift = round(shift * 8) / 8
  np.testing.assert_allclose(
    signal(logits + shift, labels), signal(logits, labels), atol=1e-9
  )


@settings(deadline=None)
@given(given_outputs=outputs())
def test_ranges(given_outputs):
  logits, labels = given_outputs
  classes = logits.shape[-1]
  entropy = signals.entropy(logits, labels)
  assert ((entropy >= 0) & (entropy <= math.log(classes) + 1e-12)).all()
  assert (signals.modified_entropy(logits, labels) >= 0).all()
  confidence = signals.confidence(logits, labels)
  np.testing.assert_allclose(
    confidence, np.exp(-signals.loss(logits, labels)), rtol=1e-12
  )
  taylor = signals.taylor_softmargin(logits, labels)
  assert ((taylor > 0) & (taylor < 1)).all()


@pytest.mark.parametrize("signal", ALL_SIGNALS)
def test_leading_axes_are_models(signal):
  logits, labels = random_outputs(2)
  models = np.stack([logits, logits[::-1], -logits])
  stacked = signal(models, labels)
  assert stacked.shape == (3, len(labels))
  for model, row in zip(models, stacked, strict=True):
    np.testing.assert_array_equal(row, signal(model, labels))


def test_taylor_by_hand():
  # T = 2: z/T = (1, 0), true class 0, u = 1 - 0.6 = 0.4.
  u = 0.4
  p = 1 + u + u**2 / 2 + u**3 / 6
  signal = signals.taylor_softmargin([[2.0, 0.0]], [0])
  np.testing.assert_allclose(signal, [p / (p + 1)])


@pytest.mark.parametrize("order", [2, 4, 6])
def test_taylor_increases_with_the_true_logit(order):
  z = np.linspace(-20, 20, 401)
  logits = np.stack([z, np.zeros_like(z), np.ones_like(z)], axis=-1)
  labels = np.zeros(len(z), int)
  signal = signals.taylor_softmargin(logits, labels, order=order)
  assert (np.diff(signal) >= 0).all()
  clipped = signals.taylor_clipped(logits, labels, order=order)
  assert (np.diff(signal)[~clipped[:-1]] > 0).all()
  assert clipped[0]
  assert not clipped[-1]


def test_taylor_clips_at_the_zero_of_the_cubic():
  zero = -1.5960716379833215
  logits = np.array([[0.0, 2 * zero + 0.1], [0.0, 2 * zero - 0.1]])
  clipped = signals.taylor_clipped(logits, np.array([0, 0]))
  np.testing.assert_array_equal(clipped, [False, True])
  signal = signals.taylor_softmargin(logits, np.array([0, 0]))
  p = 1 - 0.6 + 0.18 - 0.036
  np.testing.assert_allclose(signal[1], p / (p + signals.TAYLOR_FLOOR))


@pytest.mark.parametrize(
  ("logits", "labels", "message"),
  [
    ([[0.0, np.nan]], [0], "logits has 1 NaN or infinite"),
    ([[0.0, np.inf]], [0], "logits has 1 NaN or infinite"),
    (np.zeros((0, 3)), np.zeros(0, int), r"logits has shape \(0, 3\)"),
    (np.zeros((2, 1)), [0, 0], r"logits has shape \(2, 1\)"),
    (np.zeros(3), [0, 0, 0], r"logits has shape \(3,\)"),
    (np.zeros((2, 3)), [0], r"labels has shape \(1,\)"),
    (np.zeros((2, 3)), [0.0, 1.0], "dtype float64"),
    (np.zeros((2, 3)), [0, 3], "labels spans 0 to 3"),
    (np.zeros((2, 3)), [-1, 0], "labels spans -1 to 0"),
  ],
)
@pytest.mark.parametrize("signal", ALL_SIGNALS)
def test_bad_outputs(signal, logits, labels, message):
  with pytest.raises(ValueError, match=message):
    signal(logits, labels)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": 0.0}, r"temperature is 0\.0"),
    ({"margin": -1.0}, r"margin is -1\.0"),
    ({"order": 3}, "order is 3; it must be even"),
    ({"order": 0}, "order is 0"),
  ],
)
def test_bad_taylor_options(options, message):
  with pytest.raises(ValueError, match=message):
    signals.taylor_softmargin([[0.0, 1.0]], [0], **options)
