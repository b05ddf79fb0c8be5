"""The methods that are compared on image classifiers."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from junlearn.methods import (
  amun,
  ascent,
  finetune,
  fisher_forget,
  grad_difference,
  influence,
  random_label,
)
from junlearn.transform import Transform


class Method(NamedTuple):
  """A method as the experiments call it.

  Attributes:
    make: `(model, optimizer, num_classes=, **options) -> Transform`, or
      `(model) -> Transform` for one that takes a single step.
    learning_rate: the default, chosen on digits by the claims' grid search
      (experiments/results/claims_digits.md); None for a single step.
    batch_fraction: of the batch size that each part gets; a method that reads
      two parts a step gets half of each, so that all see as many examples.
    needs_retain: whether it cannot do without the retained examples.
  """

  make: Callable[..., Transform]
  learning_rate: float | None = None
  batch_fraction: float = 1.0
  needs_retain: bool = False


def _without_classes(transform):
  """Adapts a transform that does not ask for the number of classes."""

  @functools.wraps(transform)
  def make(model, optimizer, *, num_classes, **options):
    del num_classes
    return transform(model, optimizer, **options)

  return make


METHODS: Mapping[str, Method] = {
  "finetune": Method(
    _without_classes(finetune.transform), 0.1, needs_retain=True
  ),
  "ascent": Method(_without_classes(ascent.transform), 0.001),
  "grad_difference": Method(
    _without_classes(grad_difference.transform),
    0.1,
    batch_fraction=0.5,
    needs_retain=True,
  ),
  "random_label": Method(random_label.transform, 0.003),
  "amun": Method(_without_classes(amun.transform), 0.1),
  "amun_deletion": Method(
    _without_classes(functools.partial(amun.transform, use_forget=False)), 0.03
  ),
  # The damping is what came closest to retraining on digits, seed 0; alpha is
  # the released one, and no other did better there.
  "influence": Method(
    functools.partial(influence.transform, damping=3e-3, batch_size=256),
    needs_retain=True,
  ),
  "fisher_forget": Method(
    functools.partial(fisher_forget.transform, alpha=1e-6), needs_retain=True
  ),
}

# Those that take as many steps as they are given.
DESCENTS = {n: m for n, m in METHODS.items() if m.learning_rate is not None}
