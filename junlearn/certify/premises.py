"""What theorems assume of models and records, checked on the host.

Each check returns the sentence that a certificate keeps, and raises a
`ValueError` with what was found and what is allowed.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree
from junlearn.certify import convexity
from junlearn.loss import OutputLoss, softmax_cross_entropy
from junlearn.model import Model
from junlearn.transform import Request
from junlearn.typing import Examples, Params
from junlearn.view import View, restrict

# What no certificate can check, whatever its theorem.
STATED: Mapping[str, str] = {
  "records": "The retained records are all that retraining would read, and "
  "none of them is one to forget under another id.",
  "noise": "Nobody learns the noise; the error of its quantile function, "
  "a few units in the last place, is neglected.",
  "scope": "Covered are the released params alone: not what was sent out "
  "before, nor times, step counts and refusals.",
}


def of_classifier(
  model: Model,
  output_loss: OutputLoss,
  *,
  convex: str,
  view: View,
  axes: int,
) -> dict[str, Callable[[Params, Request], str]]:
  """All that a bound by the residual assumes, as `certified.Bound` wants it.

  Args:
    model: of one client.
    output_loss: `(outputs, examples) -> [n]`.
    convex: as in `convexity.check_loss`.
    view: which leaves are free.
    axes: leading axes of the examples: 1, or 2 where params and examples are
      stacked over clients.
  """

  def outputs_of(params, request):
    """The model of the free leaves, these, a few examples and outputs."""
    examples = retained(request)
    if axes == 2:  # the first client stands for all
      params, examples = tree.take((params, examples), 0)
    free_model, free = restrict(model, view, params)
    examples = jax.tree.map(jnp.asarray, examples)
    return free_model, free, examples

  def linear(params, request):
    free_model, free, examples = outputs_of(params, request)
    convexity.check_linear(free_model, free, examples["input"])
    outputs = _outputs(free_model, free, examples)
    if outputs.dtype != jnp.float64:
      raise ValueError(
        f"the model's outputs are {outputs.dtype}; certified releases need "
        "float64 throughout."
      )
    return "The model's outputs are affine in all free params."

  def loss(params, request):
    free_model, free, examples = outputs_of(params, request)
    outputs = free_model.apply(free, examples["input"])[0]
    return convexity.check_loss(output_loss, outputs, examples, stated=convex)

  def classes(params, request):
    outputs = _outputs(*outputs_of(params, request))
    return labels(request, axes=axes, classes=outputs.shape[-1])

  checks = {
    "weights": lambda params, request: weights(request, axes=axes),
    "disjoint": lambda params, request: disjoint(request, axes=axes),
    "linear": linear,
    "loss": loss,
  }
  if output_loss is softmax_cross_entropy:
    checks["labels"] = classes
  return checks


def statement(**sentence: str) -> str:
  """The sentence that a caller vouches for.

  Raises:
    ValueError: if it is empty.
  """
  ((name, text),) = sentence.items()
  if not isinstance(text, str) or not text.strip():
    raise ValueError(
      f"{name} is {text!r}; it must say, in a sentence, what cannot be checked."
    )
  return text.strip()


def retained(request: Request) -> Examples:
  """The examples to keep, without text such as ids, which JAX cannot hold.

  Raises:
    ValueError: if the request has none.
  """
  if not isinstance(request, Request):
    raise ValueError(
      f"the request is a {type(request).__name__}; it must be a Request."
    )
  if request.retain is None:
    raise ValueError("the request has no retain examples.")

  def without_text(leaf):
    is_text = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSTU"
    return None if is_text else leaf

  return jax.tree.map(without_text, request.retain)


def weights(request: Request, *, axes: int) -> str:
  """Every record counts once or not at all: weights are 0 or 1.

  Records with fractions would be forgotten by fractions; negative weights make
  a risk that is not convex.

  Args:
    request: with `retain`; examples have `input` and, perhaps, `weight`.
    axes: leading axes of the examples, 1 for `[n, ...]` and 2 for
      `[clients, n, ...]`.

  Raises:
    ValueError: if a weight is something else, the weights are not one a record,
      or nothing is retained.
  """
  retained(request)
  for part, examples in _parts(request):
    shape = np.shape(examples["input"])[:axes]
    weight = _weight(examples, axes)
    if weight.shape != shape:
      raise ValueError(
        f"request.{part} has weights of shape {weight.shape}; certified "
        f"unlearning needs one a record, {shape}."
      )
    wrong = weight[(weight != 0) & (weight != 1)]
    if wrong.size:
      raise ValueError(
        f"request.{part} has the weight {wrong[0]:.6g}; certified unlearning "
        "allows 0 and 1 alone, a record being there or not."
      )
  if not _weight(request.retain, axes).any():
    raise ValueError(
      "request.retain has no record (all weights are 0); certified unlearning "
      "needs one at least."
    )
  return "Every record counts once: all weights are 0 or 1, and some are 1."


def labels(request: Request, *, axes: int, classes: int) -> str:
  """Labels are integers in [0, classes).

  Raises:
    ValueError: if one is not.
  """
  for part, examples in _parts(request):
    label = np.asarray(examples["label"])
    shape = np.shape(examples["input"])[:axes]
    if label.shape != shape or not np.issubdtype(label.dtype, np.integer):
      raise ValueError(
        f"request.{part} has labels of dtype {label.dtype} and shape "
        f"{label.shape}; they must be integers, one a record, {shape}."
      )
    found = label[_weight(examples, axes) > 0]
    wrong = found[(found < 0) | (found >= classes)]
    if wrong.size:
      raise ValueError(
        f"request.{part} has the label {wrong[0]}; it must be in "
        f"[0, {classes})."
      )
  return f"Labels are integers in [0, {classes})."


def disjoint(request: Request, *, axes: int) -> str:
  """No record to be forgotten is retained, by `id`.

  Raises:
    ValueError: if one is, or records have no ids.
  """
  found = {}
  for part in ("forget", "retain"):
    examples = getattr(request, part)
    if examples is None or "id" not in examples:
      raise ValueError(
        f"request.{part} has no ids; a certificate needs those of the records "
        "to forget and to retain, which must be different ones."
      )
    present, ids = _weight(examples, axes) > 0, np.asarray(examples["id"])
    is_text = ids.dtype.kind == "U" or all(isinstance(i, str) for i in ids.flat)
    if ids.shape != present.shape or not (ids.dtype.kind in "iu" or is_text):
      raise ValueError(
        f"request.{part} has ids of dtype {ids.dtype} and shape {ids.shape}; "
        f"they must be integers or text, one a record, {present.shape}."
      )
    found[part] = ids[present]
    values, counts = np.unique(found[part], return_counts=True)
    if values.size < found[part].size:
      raise ValueError(
        f"request.{part} has the id {values[counts > 1][0]} more than once; "
        "ids must tell records apart."
      )
  both = np.intersect1d(*found.values())
  if both.size:
    raise ValueError(
      f"request.retain has {both.size} of the records to forget, such as id "
      f"{both[0]}; it must have none."
    )
  if not found["forget"].size:
    raise ValueError(
      "request.forget has no record; a certificate needs one at least."
    )
  return "No record to forget is among the retained ones, by id."


def present_ids(examples: Examples, *, axes: int) -> list[int | str]:
  """The ids of the records that are there."""
  return np.asarray(examples["id"])[_weight(examples, axes) > 0].tolist()


def _outputs(model, params, examples):
  return jax.eval_shape(lambda p: model.apply(p, examples["input"])[0], params)


def _parts(request: Request):
  for part in ("forget", "retain"):
    examples = getattr(request, part)
    if examples is not None:
      yield part, examples


def _weight(examples, axes):
  if "weight" not in examples:
    return np.ones(np.shape(examples["input"])[:axes])
  weight = np.asarray(examples["weight"])
  if weight.dtype.kind not in "biuf":
    raise ValueError(f"weight has dtype {weight.dtype}; it must be numbers.")
  return weight
