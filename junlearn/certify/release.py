"""A stage, the bound on what it left, and noise to match: one release.

    w~ = stage(w),  |w~ - w'| <= bound(w~),  release [w~] + [N(0, sigma^2 I)]

`(epsilon, delta)`-certified unlearning: no test tells the release from a model
retrained without the forgotten examples and released with the same noise,

    Pr[release in O] <= e^epsilon Pr[retrained release in O] + delta

for every set O, and vice versa. `certify` states it in full, with proofs.
"""

import functools
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from junlearn import tree, validate
from junlearn.certify import bounds, calibrate, noise
from junlearn.certify.derived import (
  Derived,
  Head,
  check_a_priori,
  check_theorem,
  derive,
)
from junlearn.transform import Request, Result, Transform, stage_key
from junlearn.typing import Params
from junlearn.view import View, full

# Beyond it a release and its opposite differ by odds of e^20, which says
# nothing to anyone.
MAX_EPSILON = 20.0

Check = Callable[[Params, Request], str]


class NotReachedError(ArithmeticError):
  """The distance to retraining is not known to be small enough."""


class Bound(NamedTuple):
  """How far params are from exact retraining, and why that is certain.

      |w - w'| <= theorem(**constants, **measure(w, request))

  Made by a method's `bound` (`methods.newton`, `methods.decentralized_newton`),
  which knows what its theorem assumes.

  Attributes:
    theorem: name of a function of `bounds`.
    constants: arguments of it that are public.
    measure: `(params, request) -> ` the other arguments, scalars by name; pure.
    norm: what is bounded, hence what noise fits: "joint", all free leaves as
      one vector; "row", any one of the rows of axis 0, which are equal.
    retrain_error: most that the params of retraining are away from their own
      optimum or fixed point, at least 0.
    checks: `(params, request) -> sentence` by name, each of which refuses, by
      a `ValueError`, what the theorem does not cover.
    stated: what no program can check, a sentence by name, in the words of
      whoever vouches for it.
    axes: leading axes of the examples: 1, or 2 for `[clients, n, ...]`.
    head: the constants of the model, where the theorem reads them.
    view: the free leaves; the others must be as retraining would have them.
  """

  theorem: str
  constants: Mapping[str, float | Derived]
  measure: Callable[[Params, Request], Mapping[str, Any]]
  norm: noise.Norm
  retrain_error: float
  checks: Mapping[str, Check]
  stated: Mapping[str, str]
  axes: int = 1
  head: Head | None = None
  view: View = full()

  def distance(self, params: Params, request: Request) -> Any:
    """The bound alone, unchecked; may be traced."""
    constants = {
      name: value.result if isinstance(value, Derived) else value
      for name, value in self.constants.items()
    }
    measured = self.measure(params, request)
    return getattr(bounds, self.theorem)(**constants, **measured)

  def measured(self, params: Params, request: Request) -> Derived:
    """The bound of these params with all that it follows from."""
    found = self.measure(params, request)
    numbers = {name: float(value) for name, value in found.items()}
    if not all(map(math.isfinite, numbers.values())):
      raise NotReachedError(
        "the distance to retraining cannot be measured (NaN or infinite); "
        "nothing was released."
      )
    return derive(self.theorem, **self.constants, **numbers)

  def check(self, params: Params, request: Request) -> dict[str, str]:
    """Runs every check.

    Returns:
      What each has established, by name.

    Raises:
      ValueError: by the first check that fails.
    """
    return {name: check(params, request) for name, check in self.checks.items()}


class Release(NamedTuple):
  """The terms of one release: all but the params without noise.

  Attributes:
    epsilon: of this release.
    delta: of this release.
    max_distance: what `measured.result` had to reach.
    limit: the theorem that `max_distance` is the result of, if one was given.
    measured: the bound of the params before noise.
    rounding: what the grid adds to the distance.
    sigma: standard deviation of the noise.
    grid: step of the grid.
    noise_dimensions: independent draws.
    fallback: whether the params were retrained.
    checked: what `Bound.check` established.
  """

  epsilon: float
  delta: float
  max_distance: float
  limit: Derived | None
  measured: Derived
  rounding: float
  sigma: float
  grid: float
  noise_dimensions: int
  fallback: bool
  checked: dict[str, str]


def certified(
  stage: Transform,
  bound: Bound,
  *,
  epsilon: float,
  delta: float,
  max_distance: float | Derived,
  fallback: Transform | None = None,
  entropy: noise.Entropy = secrets.token_bytes,
) -> Transform:
  """Checks all that can be checked, runs the stage, adds noise once.

      sigma = gaussian_sigma(epsilon, delta, distance),
      distance = max_distance + retrain_error + rounding

  Args:
    stage: any transform; it runs with the key `stage_key(key, "stage")`.
    bound: the method's `bound`.
    epsilon: in (0, 20].
    delta: in (0, 1).
    max_distance: a public number above 0 that the bound must reach, chosen
      before the data are seen; or the a-priori theorem that gives it, by
      `derived.derive`.
    fallback: retrains where the stage does not come near enough, with the key
      `stage_key(key, "fallback")`, and is held to the same distance.
    entropy: where the noise comes from; anything but the operating system is
      for tests.

  Returns:
    A transform that runs on the host, outside `jit`; its info has the stage's
    as `stage` and the `Release` as `release`. The same arguments give another
    release each time.

  Raises:
    ValueError: if an argument is out of range; when applied, if an assumption
      does not hold, a leaf is not float64, double precision is off, the stage
      changed a leaf that is not free, or the noise is too small for doubles.
    NotReachedError: when applied, if the bound is above `max_distance` and
      there is no fallback, or it is so after the fallback too. Nothing is
      released then.

  **Guarantees**: `(epsilon, delta)`-certified unlearning of the released
  params, under what `bound.stated` says. It covers the params alone: not
  `info`, nor the time taken, nor what was released before, nor, without a
  fallback, that there was a release at all (`certify`).
  """
  terms = functools.partial(
    describe, bound, epsilon=epsilon, delta=delta, max_distance=max_distance
  )
  _check_numbers(epsilon, delta, _number(max_distance), bound)

  def transform(key, params, request):
    _check_certifiable(params)
    bound.check(params, request)  # before any work is done
    # A stage may write into NumPy's arrays; what was given is what is measured.
    given, asked = (
      jax.tree.map(lambda leaf: np.array(leaf, copy=True), each)
      for each in (params, request)
    )

    def run(name, stage):
      result = stage(stage_key(key, name), params, request)
      if not isinstance(result, Result):
        raise ValueError(
          f"the {name} returned a {type(result).__name__}; it must be a Result."
        )
      _check_certifiable(result.params)
      _check_form(bound.view, given, result.params)
      return result, terms(result.params, asked, fallback=name == "fallback")

    try:
      result, release = run("stage", stage)
    except NotReachedError:
      if fallback is None:
        raise
      result, release = run("fallback", fallback)
    free, fixed = bound.view.split(result.params)
    noisy = noise.add(
      free,
      sigma=release.sigma,
      step=release.grid,
      norm=bound.norm,
      entropy=entropy,
    )
    released = bound.view.merge(noisy, fixed)
    noise.check_float64(released)
    info = {"stage": result.info, "release": release}
    return Result(released, result.request, info)

  return transform


def describe(
  bound: Bound,
  params: Params,
  request: Request,
  *,
  epsilon: float,
  delta: float,
  max_distance: float | Derived,
  fallback: bool = False,
) -> Release:
  """The terms on which params can be released, everything checked.

  `certified` adds its noise on these, and a verifier finds them again.

  Args:
    bound: the method's.
    params: before noise.
    request: that they answer.
    epsilon: as in `certified`.
    delta: the same.
    max_distance: the same.
    fallback: whether the params were retrained.

  Raises:
    ValueError: as in `certified`.
    NotReachedError: if the bound is above `max_distance`.
  """
  limit = max_distance if isinstance(max_distance, Derived) else None
  max_distance = _number(max_distance)
  _check_numbers(epsilon, delta, max_distance, bound)
  # NumPy's narrow floats would swallow what is added to them.
  epsilon, delta, max_distance = map(float, (epsilon, delta, max_distance))
  checked = bound.check(params, request)
  measured = bound.measured(params, request)
  if not measured.result <= max_distance:
    raise NotReachedError(
      f"the distance to retraining is only known to be at most "
      f"{measured.result:.3g}, above max_distance, {max_distance:.3g}; "
      "nothing was released. Retrain, or allow a larger distance."
    )
  unrounded = max_distance + float(bound.retrain_error)
  dimensions = noise.dimensions(bound.view.split(params)[0], bound.norm)
  step = noise.grid(calibrate.gaussian_sigma(epsilon, delta, unrounded))
  rounding = noise.rounding(step, dimensions)
  return Release(
    epsilon=epsilon,
    delta=delta,
    max_distance=max_distance,
    limit=limit,
    measured=measured,
    rounding=rounding,
    sigma=calibrate.gaussian_sigma(epsilon, delta, unrounded + rounding),
    grid=step,
    noise_dimensions=dimensions,
    fallback=fallback,
    checked=checked,
  )


def _number(max_distance: float | Derived) -> float:
  if isinstance(max_distance, Derived):
    check_a_priori(max_distance)
    return max_distance.result
  return max_distance


def _check_numbers(epsilon, delta, max_distance, bound):
  if not isinstance(bound, Bound):
    raise ValueError(
      f"bound is a {type(bound).__name__}; it must be a Bound, as the `bound` "
      "of a method makes it."
    )
  named = {"epsilon": epsilon, "delta": delta, "max_distance": max_distance}
  for name, value in (named | {"retrain_error": bound.retrain_error}).items():
    if isinstance(value, bool) or not isinstance(
      value, int | float | np.number
    ):
      raise ValueError(f"{name} is {value!r}; it must be a number.")
  check_theorem(bound.theorem)
  for name in ("checks", "stated"):
    if not getattr(bound, name):
      raise ValueError(
        f"bound has no {name}; it must have what its theorem assumes, as the "
        "`bound` of a method does."
      )
  if not 0 < epsilon <= MAX_EPSILON:
    raise ValueError(
      f"epsilon is {epsilon}; it must be above 0 and at most {MAX_EPSILON:g}: "
      "beyond, a certificate says nothing."
    )
  validate.positive(max_distance=max_distance)
  validate.at_least(0, retrain_error=bound.retrain_error)
  distance = float(max_distance) + float(bound.retrain_error)
  noise.grid(calibrate.gaussian_sigma(epsilon, delta, distance))


def _check_form(view, before, after):
  """Structure and shapes are kept, and what is not free bit by bit."""
  forms = [
    (jax.tree.structure(params), [np.shape(x) for x in jax.tree.leaves(params)])
    for params in (before, after)
  ]
  if forms[0] != forms[1]:
    raise ValueError(
      "the stage changed the structure or shapes of the params; it must keep "
      "them."
    )
  kept = view.merge(view.split(before)[0], view.split(after)[1])
  if tree.digest(kept) != tree.digest(before):
    raise ValueError(
      "the stage changed a leaf that is not free in the bound's view; it must "
      "leave the others as they are."
    )


def _check_certifiable(params: Params) -> None:
  if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params)):
    raise ValueError(
      "certified runs under jit or vmap; it must run on the host, where the "
      "assumptions can be checked and the noise is drawn."
    )
  noise.check_float64(params)
  noise.check_state(params)
