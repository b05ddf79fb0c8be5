"""The methods that the experiments on language models compare."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from junlearn import language, view
from junlearn.methods import (
  ascent,
  dpo,
  grad_difference,
  idk,
  kl_min,
  lune,
  npo,
  rmu,
  simnpo,
  task_vector,
  undial,
  weighted_ascent,
)
from junlearn.nn.adapters import lora
from junlearn.transform import Transform

ViewName = Literal["full", "lora"]

VIEWS = {"full": view.full(), "lora": lora.view()}


class Method(NamedTuple):
  """A method as the experiments call it.

  Attributes:
    make: `(model, optimizer, **options) -> Transform`.
    rates: learning rate by view, chosen by `experiments.language.rates`
      (experiments/results/language_rates.md); the first view is the usual one.
    needs_retain: whether it cannot do without the retained records.
    answers: those that take the place of the forgotten ones, or None.
    in_extra: whether they are a part of the request of their own (`extra`).
    options: of `make`.
  """

  make: Callable[..., Transform]
  rates: Mapping[ViewName, float]
  needs_retain: bool = True
  answers: Literal["counterfactual", "refusal"] | None = None
  in_extra: bool = False
  options: Mapping[str, Any] = {}

  @property
  def view(self) -> ViewName:
    """The usual one."""
    return next(iter(self.rates))


_TEXT = {"loss": language.cross_entropy}

METHODS: Mapping[str, Method] = {
  "lune": Method(
    lune.transform,
    {"lora": 1e-3, "full": 3e-4},
    needs_retain=False,
    answers="counterfactual",
    in_extra=True,
  ),
  "ascent": Method(
    ascent.transform,
    {"full": 1e-4, "lora": 3e-4},
    needs_retain=False,
    options=_TEXT,
  ),
  "grad_difference": Method(
    grad_difference.transform,
    {"full": 3e-4, "lora": 1e-3},
    options={**_TEXT, "alpha": 0.5},
  ),
  "kl_min": Method(kl_min.transform, {"full": 3e-4, "lora": 1e-3}),
  "npo": Method(npo.transform, {"full": 3e-4, "lora": 1e-3}),
  "simnpo": Method(simnpo.transform, {"full": 3e-4, "lora": 3e-3}),
  "idk": Method(idk.transform, {"full": 3e-4, "lora": 3e-3}, answers="refusal"),
  "dpo": Method(
    dpo.transform,
    {"full": 3e-3, "lora": 3e-3},
    answers="refusal",
    options={"beta": 0.1},
  ),
  "rmu": Method(
    rmu.transform,
    {"full": 1e-3, "lora": 3e-3},
    options={"coefficient": 50.0, "alpha": 10.0},
  ),
  "undial": Method(
    undial.transform, {"lora": 3e-4, "full": 3e-4}, needs_retain=False
  ),
  "wga": Method(weighted_ascent.transform, {"full": 3e-4, "lora": 3e-3}),
  "satimp": Method(
    weighted_ascent.transform,
    {"full": 3e-3, "lora": 3e-3},
    options={"exponent": 5.0, "complement": 1.0, "gamma": 1.0},
  ),
  "task_vector": Method(
    task_vector.transform,
    {"full": 1e-4, "lora": 3e-3},
    needs_retain=False,
    options={"scale": 5.0},
  ),
}
