"""What certificates assume of records, models and losses, and who says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import view
from junlearn.certify import premises
from junlearn.loss import softmax_cross_entropy
from junlearn.model import from_function
from junlearn.transform import Request

CLASSES = 3


def part(ids, **changes):
  ids = np.asarray(ids)
  rng = np.random.default_rng(len(ids))
  label = rng.integers(0, CLASSES, len(ids)).astype(np.int32)
  examples = {"input": rng.normal(size=(len(ids), 4)), "label": label}
  examples = {**examples, "id": ids, **changes}
  return {k: v for k, v in examples.items() if v is not None}


def request(forget=None, retain=None):
  """Of two and four records, with changes to their leaves."""
  forget, retain = forget or {}, retain or {}
  return Request(
    part(forget.pop("id", [1, 2]), **forget),
    part(retain.pop("id", [3, 4, 5, 6]), **retain),
  )


def stacked(request, clients=2):
  """The same records, as of clients."""
  return jax.tree.map(
    lambda leaf: leaf.reshape(clients, -1, *leaf.shape[1:]), request
  )


def to_jax(request):
  return jax.tree.map(jnp.asarray, request)


def affine(params, inputs):
  return inputs @ params["kernel"] + params["bias"]


def net(params, inputs):
  return affine(params, jnp.tanh(inputs @ params["body"]))


def params(clients=None):
  made = {"kernel": np.ones((4, CLASSES)), "bias": np.zeros(CLASSES)}
  if clients:
    made = {k: np.stack([leaf] * clients) for k, leaf in made.items()}
  return made


def check(request, *, axes=1, function=affine, given=None, **options):
  """What all checks establish, on NumPy arrays and on JAX's."""
  settings = {"output_loss": softmax_cross_entropy, "convex": ""}
  settings |= {"view": view.full(), **options}
  checks = premises.of_classifier(
    from_function(function), axes=axes, **settings
  )
  given = given or params(2 if axes == 2 else None)
  said = {name: one(given, request) for name, one in checks.items()}
  assert all(sentence.endswith(".") for sentence in said.values())
  return said


def refused(request, message, **options):
  """By one sentence, whatever the arrays."""
  for arrays in (request, to_jax(request)):
    with pytest.raises(ValueError, match=message) as error:
      check(arrays, **options)
    assert str(error.value).count("\n") == 0
    assert str(error.value).endswith(".")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [1, 2])
def test_a_request_in_order(axes):
  good = request(retain={"weight": np.array([1, 0, 1, 1])})
  good = good if axes == 1 else stacked(good)
  for arrays in (good, to_jax(good)):
    said = check(arrays, axes=axes)
    assert set(said) == {"weights", "disjoint", "linear", "loss", "labels"}
    assert premises.present_ids(arrays.retain, axes=axes) == [3, 5, 6]


@pytest.mark.usefixtures("x64")
def test_ids_may_be_strings():
  names = request({"id": ["a", "b"]}, {"id": ["c", "d", "e", "f"]})
  check(names)
  check(stacked(names), axes=2)
  assert premises.present_ids(names.retain, axes=1) == ["c", "d", "e", "f"]
  same = request({"id": ["a", "b"]}, {"id": ["c", "b", "e", "f"]})
  for one, axes in ((same, 1), (stacked(same), 2)):
    with pytest.raises(ValueError, match=r"1 of the records .* id b;"):
      check(one, axes=axes)


@pytest.mark.usefixtures("x64")
def test_what_jax_cannot_hold_is_not_retained_for_it():
  names = request({"id": ["a", "b"]}, {"id": ["c", "d", "e", "f"]})
  found = premises.retained(names)
  assert found["id"] is None
  np.testing.assert_array_equal(found["input"], names.retain["input"])
  numbers = request().retain
  assert premises.retained(Request(None, numbers)) == numbers


# Weights.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["forget", "retain"])
@pytest.mark.parametrize("wrong", [-1, 0.5, 2, 1 + 1e-9, np.nan, np.inf])
def test_weights_are_0_or_1(name, wrong):
  weight = np.ones(4 if name == "retain" else 2)
  weight[1] = wrong
  bad = request(**{name: {"weight": weight}})
  shown = f"request.{name} has the weight {wrong:.6g}; certified"
  refused(bad, shown)
  refused(stacked(bad), shown, axes=2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(4, 1), (3,), (), (1, 4), (5,)])
def test_weights_are_one_a_record(shape):
  bad = request(retain={"weight": np.ones(shape)})
  refused(bad, "request.retain has weights of shape .* one a record, .4,.")


@pytest.mark.usefixtures("x64")
def test_something_is_retained():
  refused(request(retain={"weight": np.zeros(4)}), "retain has no record")
  empty = request()._replace(retain=part([]))
  refused(empty, "request.retain has no record")
  refused(Request(part([1]), None), "the request has no retain examples")


# Labels.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["forget", "retain"])
@pytest.mark.parametrize("wrong", [-1, CLASSES, 2**31 - 1])
def test_labels_are_classes(name, wrong):
  label = np.zeros(4 if name == "retain" else 2, np.int32)
  label[1] = wrong
  bad = request(**{name: {"label": label}})
  shown = rf"request.{name} has the label {wrong}; it must be in \[0, 3\)"
  refused(bad, shown)
  refused(stacked(bad), shown, axes=2)
  absent = np.ones(len(label))
  absent[1] = 0
  check(request(**{name: {"label": label, "weight": absent}}))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "label",
  [np.zeros(4), np.zeros((4, 1), int), np.zeros(4, bool)],
)
def test_labels_are_integers_one_a_record(label):
  refused(
    request(retain={"label": label}), "request.retain has labels of dtype"
  )
  few = request(retain={"label": np.zeros(3, int)})
  refused(few, "request.retain has labels of dtype")


# Ids.


@pytest.mark.usefixtures("x64")
def test_no_record_is_forgotten_and_retained():
  both = request(retain={"id": np.array([3, 2, 1, 6])})
  refused(both, "request.retain has 2 of the records to forget, such as id 1")
  refused(stacked(both), "request.retain has 2 of the records", axes=2)
  absent = np.array([1, 0, 0, 1])
  check(request(retain={"id": np.array([3, 2, 1, 6]), "weight": absent}))


@pytest.mark.usefixtures("x64")
def test_records_have_ids_and_one_is_forgotten():
  for name in ("forget", "retain"):
    without = getattr(request(), name)
    without = {k: v for k, v in without.items() if k != "id"}
    bad = request()._replace(**{name: without})
    refused(bad, f"request.{name} has no ids")
  refused(request()._replace(forget=None), "request.forget has no ids")
  nothing = "request.forget has no record; a certificate needs one"
  refused(request()._replace(forget=part(np.zeros(0, int))), nothing)
  refused(request({"weight": np.zeros(2)}), nothing)


# Models and losses.


@pytest.mark.usefixtures("x64")
def test_models_are_affine_in_what_is_free():
  given = {**params(), "body": np.eye(4)}
  refused(request(), "operation 'tanh'", function=net, given=given)
  head = view.only("kernel|bias")
  said = check(request(), function=net, given=given, view=head)
  assert said["linear"] == "The model's outputs are affine in all free params."
  stack = jax.tree.map(lambda leaf: np.stack([leaf] * 2), given)
  bad = stacked(request())
  refused(bad, "operation 'tanh'", function=net, given=stack, axes=2)


@pytest.mark.usefixtures("x64")
def test_models_keep_double_precision():
  def short(params, inputs):
    return affine(params, inputs).astype(jnp.float32)

  single_params = jax.tree.map(lambda w: w.astype(np.float32), params())
  single = request(retain={"input": np.zeros((4, 4), np.float32)})
  refused(single, "outputs are float32", given=single_params)
  refused(request(), "'convert_element_type'", function=short)


@pytest.mark.usefixtures("x64")
def test_losses_are_known_or_said_to_be_convex():
  def squared(outputs, examples):
    target = jax.nn.one_hot(examples["label"], CLASSES)
    return jnp.sum(jnp.square(outputs - target), 1)

  def concave(outputs, examples):
    return -squared(outputs, examples)

  refused(request(), "output_loss is 'squared', and", output_loss=squared)
  why = "A square."
  said = check(request(), output_loss=squared, convex=why)
  assert said["loss"] == "The loss is convex in the outputs: A square."
  assert "labels" not in said
  both = stacked(request())
  assert check(both, output_loss=squared, convex=why, axes=2)["loss"]
  with pytest.raises(ValueError, match="'concave', which is not convex"):
    check(request(), output_loss=concave, convex=why)


@pytest.mark.parametrize("wrong", ["", "  ", None, 3, ["Given."]])
def test_statements_say_something(wrong):
  with pytest.raises(
    ValueError, match=r"features is .*; it must say, in a sen"
  ):
    premises.statement(features=wrong)
  assert premises.statement(features=" Given. ") == "Given."


def test_what_nobody_can_check_is_said():
  assert set(premises.STATED) == {"records", "noise", "scope"}
  assert all(text.endswith(".") for text in premises.STATED.values())
