"""Nearest adversarial examples against closed forms and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree
from junlearn.adversarial import nearest_adversarial, random_direction
from junlearn.model import from_function
from tests import problems

WIDE = (-100.0, 100.0)


def cloud(*, classes, n=40, features=5, seed=0):
  """Random examples and a linear model; labels are the model's own."""
  rng = np.random.default_rng(seed)
  kernel = rng.normal(size=(features, classes)).astype(np.float32)
  model, params = problems.linear(kernel, np.zeros(classes, np.float32))
  inputs = jnp.asarray(rng.normal(size=(n, features)).astype(np.float32))
  labels = jnp.argmax(model.apply(params, inputs)[0], axis=-1)
  return model, params, {"input": inputs, "label": labels.astype(jnp.int32)}


def distance_to_boundary(model, params, examples):
  """Exact l2 distance: min over classes of margin / |w_y - w_c|."""
  kernel = np.asarray(params["kernel"], np.float64)
  logits = np.asarray(model.apply(params, examples["input"])[0], np.float64)
  label = np.asarray(examples["label"])
  margin = logits[np.arange(len(label)), label][:, None] - logits
  span = np.linalg.norm(kernel[:, label].T[:, None] - kernel.T[None], axis=2)
  other = np.arange(kernel.shape[1]) != label[:, None]
  return np.min(np.where(other, margin / np.where(other, span, 1), np.inf), 1)


def bumpy(seed=0, n=24, hidden=12):
  """A random tanh net in the working precision; few labels are its own."""
  rng = np.random.default_rng(seed)
  params = {
    "hidden": jnp.asarray(rng.normal(0, 1.5, (4, hidden))),
    "out": jnp.asarray(rng.normal(0, 1, (hidden, 3))),
  }
  model = from_function(lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["out"])
  inputs = jnp.asarray(rng.uniform(0.3, 0.7, (n, 4)))
  labels = jnp.argmax(model.apply(params, inputs)[0], axis=-1)
  labels = labels.at[:3].set((labels[:3] + 1) % 3)
  return model, params, {"input": inputs, "label": labels.astype(jnp.int32)}


@pytest.mark.parametrize(("classes", "slack"), [(2, 0.1), (3, 0.3)])
def test_finds_the_closed_form_distance_of_a_linear_model(classes, slack):
  model, params, examples = cloud(classes=classes)
  exact = distance_to_boundary(model, params, examples)
  found = nearest_adversarial(model, epsilon=0.04, box=WIDE)(params, examples)
  distance = np.asarray(found.distance)
  assert not np.any(found.failed)
  assert np.all(distance >= exact * (1 - 1e-4))
  # A step is a tenth of the radius. With two classes the gradient points
  # straight to the boundary; with more it also points away from the others.
  assert np.all(distance <= exact + slack * found.epsilon + 1e-5)
  far = exact > 0.08
  assert np.median(distance[far] / exact[far]) < 1.12
  # The radius that flips is the first of the doublings beyond the boundary.
  assert np.all(found.epsilon >= exact * (1 - 1e-4))
  if classes == 2:
    assert np.all((found.epsilon < 2 * exact + 1e-5) | (found.epsilon < 0.05))


def test_labels_flip_to_what_the_model_says():
  model, params, examples = cloud(classes=3)
  found = nearest_adversarial(model, box=WIDE)(params, examples)
  said = jnp.argmax(model.apply(params, found.input)[0], axis=-1)
  np.testing.assert_array_equal(found.label, said)
  assert np.all(found.label != examples["label"])
  assert found.label.dtype == examples["label"].dtype
  assert found.input.dtype == examples["input"].dtype
  np.testing.assert_allclose(
    found.distance,
    np.linalg.norm(found.input - examples["input"], axis=1),
    rtol=1e-4,
    atol=1e-6,
  )


def test_misclassified_examples_are_their_own():
  model, params, examples = cloud(classes=3)
  said = examples["label"]
  wrong = {**examples, "label": (said + 1) % 3}
  found = nearest_adversarial(model, box=WIDE)(params, wrong)
  np.testing.assert_array_equal(found.input, examples["input"])
  np.testing.assert_array_equal(found.distance, 0)
  np.testing.assert_array_equal(found.label, said)
  np.testing.assert_allclose(found.epsilon, 0.04)
  assert not np.any(found.failed)
  assert found.steps == 1


def test_what_cannot_flip_fails_and_stays():
  model, params, examples = cloud(classes=3)
  constant = jax.tree.map(jnp.zeros_like, params)
  constant["bias"] = jnp.asarray([0.0, 1.0, 0.0])
  labels = jnp.asarray([1, 0] * 20, jnp.int32)  # every other one is wrong
  search = nearest_adversarial(model, num_steps=5, max_doublings=3, box=WIDE)
  found = search(constant, {**examples, "label": labels})
  np.testing.assert_array_equal(found.failed, labels == 1)
  np.testing.assert_array_equal(found.input, examples["input"])
  np.testing.assert_array_equal(found.label, 1)
  np.testing.assert_array_equal(found.distance, 0)
  np.testing.assert_allclose(found.epsilon[labels == 1], 0.04 * 2**3)
  assert found.steps == 5 * 4


def test_gives_up_beyond_the_largest_radius():
  model, params, examples = cloud(classes=2)
  exact = distance_to_boundary(model, params, examples)
  search = nearest_adversarial(model, epsilon=0.1, max_doublings=2, box=WIDE)
  found = search(params, examples)
  np.testing.assert_array_equal(found.failed, exact > 0.4)
  assert 0 < np.sum(found.failed) < len(exact)


def test_a_flip_at_the_last_step_counts():
  model, params = problems.linear(
    np.asarray([[1.0, -1.0]], np.float32), np.zeros(2, np.float32)
  )
  examples = {
    "input": jnp.asarray([[0.35]]),
    "label": jnp.asarray([0], jnp.int32),
  }
  for num_steps, failed in ((3, True), (4, False)):
    found = nearest_adversarial(
      model, epsilon=1.0, num_steps=num_steps, max_doublings=0, box=WIDE
    )(params, examples)
    assert bool(found.failed[0]) is failed
  np.testing.assert_allclose(found.distance, [0.4], rtol=1e-5)


def test_first_radius_hardly_matters():
  model, params, examples = cloud(classes=3)
  median = [
    np.median(
      nearest_adversarial(model, epsilon=epsilon, box=WIDE)(
        params, examples
      ).distance
    )
    for epsilon in (0.04, 0.02)
  ]
  assert abs(median[1] / median[0] - 1) < 0.1


def test_respects_the_box():
  model, params, examples = cloud(classes=3)
  inputs = jnp.clip(0.5 + examples["input"], 0, 1)  # many in a corner
  labels = jnp.argmax(model.apply(params, inputs)[0], axis=-1)
  inside = {"input": inputs, "label": labels.astype(jnp.int32)}
  found = nearest_adversarial(model, max_doublings=6)(params, inside)
  assert np.all(found.input >= 0)
  assert np.all(found.input <= 1)
  free = nearest_adversarial(model, max_doublings=6, box=WIDE)(params, inside)
  assert np.any((free.input < 0) | (free.input > 1))
  assert np.mean(found.distance) > np.mean(free.distance)


def test_cold_start_finds_about_the_same_distance():
  model, params, examples = bumpy()
  warm, cold = (
    nearest_adversarial(model, warm_start=warm_start, box=WIDE)(
      params, examples
    )
    for warm_start in (True, False)
  )
  assert np.any(cold.distance != warm.distance)
  assert np.mean(cold.distance) < 1.1 * np.mean(warm.distance)
  assert np.mean(warm.distance) < 1.1 * np.mean(cold.distance)
  assert cold.steps > warm.steps


def test_batch_size_changes_nothing():
  model, params, examples = cloud(classes=3, n=30)
  whole = nearest_adversarial(model, batch_size=100, box=WIDE)(params, examples)
  for batch_size in (7, 16, 30):
    search = nearest_adversarial(model, batch_size=batch_size, box=WIDE)
    found = search(params, examples)
    np.testing.assert_array_equal(found.label, whole.label)
    np.testing.assert_array_equal(found.failed, whole.failed)
    assert found.steps == whole.steps
    for field in ("input", "distance", "epsilon"):
      np.testing.assert_allclose(
        getattr(found, field), getattr(whole, field), rtol=1e-5, atol=1e-6
      )


def plain_search(
  params, x, y, *, epsilon, num_steps, max_doublings, box, warm_start=True
):
  """One example, as the dossier writes it (amun.md, 3.1), in plain NumPy."""
  hidden, out = (np.asarray(params[name]) for name in ("hidden", "out"))

  def logits(x):
    return np.tanh(x @ hidden) @ out

  def gradient(x):
    activation = np.tanh(x @ hidden)
    z = activation @ out
    p = np.exp(z - z.max())
    p = p / p.sum()
    p[y] -= 1
    return hidden @ ((out @ p) * (1 - activation**2))

  delta = np.zeros_like(x)
  for doubling in range(max_doublings + 1):
    if not warm_start:
      delta = np.zeros_like(x)
    for _ in range(num_steps):
      said = int(np.argmax(logits(x + delta)))
      if said != y:
        return delta, said, epsilon, False
      g = gradient(x + delta)
      g = g / (np.linalg.norm(g) + 1e-10)
      delta = delta + epsilon / 10 * g
      delta = delta * min(1, epsilon / np.linalg.norm(delta))
      delta = np.clip(x + delta, *box) - x
    if doubling < max_doublings:
      epsilon = 2 * epsilon
  said = int(np.argmax(logits(x + delta)))
  return (delta if said != y else 0 * delta), said, epsilon, bool(said == y)


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.usefixtures("x64")
def test_agrees_with_a_plain_loop(warm_start):
  model, params, examples = bumpy(seed=2)
  options = {
    "epsilon": 0.03,
    "num_steps": 20,
    "max_doublings": 3,
    "box": (0.25, 0.75),
    "warm_start": warm_start,
  }
  found = nearest_adversarial(model, batch_size=10, **options)(params, examples)
  assert 0 < np.sum(found.failed) < 12
  assert len(np.unique(found.epsilon)) == 4
  for row in range(len(examples["label"])):
    x, y = np.asarray(examples["input"][row]), int(examples["label"][row])
    delta, said, epsilon, failed = plain_search(params, x, y, **options)
    np.testing.assert_allclose(found.input[row], x + delta, atol=1e-9)
    np.testing.assert_allclose(found.epsilon[row], epsilon)
    np.testing.assert_allclose(
      found.distance[row], np.linalg.norm(delta), atol=1e-9
    )
    assert int(found.label[row]) == said
    assert bool(found.failed[row]) is failed


def test_maps_over_params():
  model, params, examples = cloud(classes=3)
  _, other, _ = cloud(classes=3, seed=1)
  search = nearest_adversarial(model, max_doublings=4, batch_size=16, box=WIDE)
  stacked = tree.stack([params, other])
  mapped = jax.jit(jax.vmap(search, in_axes=(0, None)))(stacked, examples)
  for member, member_params in enumerate((params, other)):
    single = search(member_params, examples)
    for name, value in single._asdict().items():
      np.testing.assert_allclose(
        getattr(mapped, name)[member], value, rtol=1e-4, atol=1e-5
      )


@pytest.mark.parametrize(
  "option",
  [
    {"epsilon": 0.0},
    {"epsilon": -1.0},
    {"epsilon": float("nan")},
    {"num_steps": 0},
    {"max_doublings": -1},
    {"batch_size": 0},
    {"box": (1.0, 0.0)},
  ],
)
def test_refuses_numbers_out_of_range(option):
  model, _, _ = cloud(classes=2)
  (name,) = option
  with pytest.raises(ValueError, match=f"{name} is"):
    nearest_adversarial(model, **option)


def test_refuses_rows_that_disagree():
  model, params, examples = cloud(classes=2)
  examples = {**examples, "label": examples["label"][:3]}
  with pytest.raises(ValueError, match="disagree on their number"):
    nearest_adversarial(model)(params, examples)


def test_random_direction_has_the_norm_asked_for():
  inputs = jnp.full((50, 4, 4, 1), 0.5)
  distance = jnp.linspace(0.0, 0.3, 50)
  moved = random_direction(jax.random.key(0), inputs, distance)
  assert moved.dtype == inputs.dtype
  change = np.asarray(moved - inputs).reshape(50, -1)
  np.testing.assert_allclose(
    np.linalg.norm(change, axis=1), distance, rtol=1e-5, atol=1e-6
  )
  unit = change[1:] / np.linalg.norm(change[1:], axis=1, keepdims=True)
  cosines = (unit @ unit.T)[np.triu_indices(49, 1)]
  # Cosines of random directions in 16 dimensions: mean 0, variance 1/16.
  assert abs(np.mean(cosines)) < 4 * 0.25 / np.sqrt(len(cosines))
  assert np.std(cosines) == pytest.approx(0.25, rel=0.15)


def test_random_direction_respects_the_box():
  inputs = jnp.full((5, 3), 0.9)
  moved = random_direction(jax.random.key(0), inputs, jnp.full(5, 2.0))
  assert np.all((moved >= 0) & (moved <= 1))
