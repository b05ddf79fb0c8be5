"""Linear heads, and inputs for which the constants of their risks are public.

Inputs are flat images of norm 1 with a constant feature, scaled to norm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from junlearn.audit.outputs import predict
from junlearn.audit.signals import correctness
from junlearn.certify import derived
from junlearn.model import Model, from_function

FEATURES = (
  "Inputs are the pixels of each image and a constant, scaled to norm 1 image "
  "by image; nothing in them was made from other records."
)


class Head(NamedTuple):
  """A classifier whose logits are linear in its params.

  Attributes:
    classes: 10, or 2 for labels below 5 and others.
    model: of one client.
  """

  classes: int
  model: Model

  def start(self, features: int) -> jax.Array:
    """Zeros."""
    shape = (features,) if self.classes == 2 else (features, self.classes)
    return jnp.zeros(shape)

  def labeled(self, digits: Any) -> Any:
    """Examples of digits, with labels in [0, classes)."""
    label = digits["label"]
    if self.classes == 2:
      label = (label >= 5).astype(label.dtype)
    return {**digits, "label": label}

  def constants(self, l2: float) -> derived.Head:
    """Of a client's risk, for inputs of norm 1."""
    if self.classes == 2:
      return derived.head_of("logistic", input_norm=1.0, l2=l2)
    return derived.head_of(
      "softmax", input_norm=1.0, l2=l2, num_classes=self.classes
    )

  def accuracy(self, params: Any, digits: Any) -> np.ndarray:
    """Of each client's model: params `[clients, ...]` -> `[clients]`."""
    examples = self.labeled(digits)
    logits = predict(self.model, params, examples["input"], stacked=True)
    return correctness(logits, examples["label"]).mean(axis=1)


def _two_logits(params, inputs):
  logit = (inputs @ params)[..., None]
  return jnp.concatenate([jnp.zeros_like(logit), logit], axis=-1)


HEADS = {
  "logistic": Head(2, from_function(_two_logits)),
  "softmax": Head(10, from_function(lambda params, inputs: inputs @ params)),
}


def features(examples: Any, *, center: np.ndarray | None = None) -> Any:
  """The examples with inputs `[n, features]` of norm 1, less a center."""
  x = np.asarray(examples["input"], np.float64)
  x = x.reshape(len(x), -1)
  if center is not None:
    x = x - center
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1) / np.sqrt(2)
  return {**examples, "input": x}
