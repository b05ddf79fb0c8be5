"""The methods that the experiments on language models compare."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from junlearn import language
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
from junlearn.transform import Transform

ViewName = Literal["full", "lora"]

VIEWS: tuple[ViewName, ...] = get_args(ViewName)


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


class Variant(NamedTuple):
  """A method and the params that it trains.

  Attributes:
    method: key of `METHODS`.
    view: one of `VIEWS`.
  """

  method: str
  view: ViewName

  @property
  def name(self) -> str:
    """The method's; the view is a part of it where it is unusual."""
    usual = self.view == METHODS[self.method].view
    return self.method if usual else f"{self.method}_{self.view}"


# Every method with every view, by name.
VARIANTS: Mapping[str, Variant] = {
  variant.name: variant
  for method in METHODS
  for view in VIEWS
  for variant in [Variant(method, view)]
}


def variants(
  methods: Iterable[str], views: Sequence[ViewName]
) -> tuple[str, ...]:
  """Names of methods with the views, or each with its usual one for none."""
  return tuple(
    Variant(method, view).name
    for method in methods
    for view in views or [METHODS[method].view]
  )
