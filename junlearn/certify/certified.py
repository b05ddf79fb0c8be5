"""A stage, the bound on what it left, and noise to match: one release.

    w~ = stage(w),  |w~ - w'| <= bound(w~),  release w~ + N(0, sigma^2 I)

`(epsilon, delta)`-certified unlearning: no test tells the release from a model
retrained without the forgotten examples and released with the same noise,

    Pr[release in O] <= e^epsilon Pr[retrained release in O] + delta

for every set O, and vice versa.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from junlearn import tree
from junlearn.certify import noise as noises
from junlearn.certify.calibrate import gaussian_sigma
from junlearn.transform import Request, Result, Transform, stage_key

Mode = Literal["worst_case", "residual_stopped", "reported"]
Bound = Callable[[Any, Request], Any]


def certified(
  stage: Transform,
  bound: Bound,
  *,
  epsilon: float,
  delta: float,
  max_distance: float | None = None,
  mode: Mode = "residual_stopped",
  comparator: float = 0.0,
  noise: noises.Noise = noises.independent,
) -> Transform:
  """Runs the stage, checks the bound, and adds noise once.

      sigma = gaussian_sigma(epsilon, delta, max_distance + comparator)

  Modes:
    residual_stopped: `max_distance` is a public target, met or not.
    worst_case: `max_distance` is a theorem's bound from public constants
      (`bounds.a_priori`); the measured bound is checked against it all the
      same, so that a broken assumption is found.
    reported: sigma from the measured bound. It depends on the data, so this is
      no certificate: `info["certified"]` is False, always.

  Where the bound is not met, or anything is not finite, nothing is released:
  all params are NaN and `info["certified"]` is False. The answer then is to
  retrain and to add the same noise.

  Args:
    stage: any transform; it runs with the key `stage_key(key, "stage")`.
    bound: `(params, request) -> scalar`, a bound on the distance of params to
      exact retraining, by `bounds`; it reads the request as given.
    epsilon: above 0.
    delta: in (0, 1).
    max_distance: above 0; None in mode `reported`, and only there.
    mode: see above.
    comparator: distance of the retrained model to its own optimum, at least 0
      (its residual over `l2`); 0 if that is the optimum itself.
    noise: `noise.independent`, or `noise.shared` for a consensus on axis 0.

  Returns:
    A transform whose `info` has the stage's as `stage`, and the scalars
    `certified` (bool), `distance` (the measured bound), `max_distance` (NaN
    in mode `reported`), `comparator`, `sigma`, `epsilon`, `delta`.

  Raises:
    ValueError: if an argument is out of range; when applied, if a leaf of the
      params is not float64 or state stands beside flax's `params`.

  **Guarantees**: `(epsilon, delta)`-certified unlearning of the released
  params, for every data set on which `bound` holds, if the key is secret and
  used once. Assumes the assumptions of the bound, hence a strongly convex
  objective in full precision. It covers the params alone: not `info`, nor the
  time taken (the steps until the bound is met depend on the data), nor what
  was released before.
  """
  if mode not in get_args(Mode):
    raise ValueError(
      f"certified: mode is {mode!r}; it must be one of "
      f"{', '.join(map(repr, get_args(Mode)))}."
    )
  reported = mode == "reported"
  if reported != (max_distance is None):
    allowed = "None" if reported else "a number above 0"
    raise ValueError(
      f"certified: max_distance is {max_distance}; in mode {mode!r} it must be "
      f"{allowed}."
    )
  if not reported and not 0 < max_distance < float("inf"):
    raise ValueError(
      f"certified: max_distance is {max_distance}; it must be above 0."
    )
  if not 0 <= comparator < float("inf"):
    raise ValueError(
      f"certified: comparator is {comparator}; it must be at least 0."
    )
  sigma_per_distance = gaussian_sigma(epsilon, delta, 1.0)

  def transform(key, params, request):
    _check_certifiable(params)
    result = stage(stage_key(key, "stage"), params, request)
    _check_certifiable(result.params)
    distance = jnp.asarray(bound(result.params, request), jnp.float64)
    limit = jnp.asarray(jnp.inf if reported else max_distance, jnp.float64)
    # A negative bound is an error of whoever computed it.
    met = (distance >= 0) & (distance <= limit) & jnp.isfinite(distance)
    met &= tree.all_finite(result.params)
    sigma = sigma_per_distance * (
      (distance if reported else limit) + comparator
    )
    noisy = noise(stage_key(key, "noise"), result.params, sigma)
    released = jax.tree.map(lambda x: jnp.where(met, x, jnp.nan), noisy)
    info = {
      "stage": result.info,
      "certified": met & (not reported),
      "distance": distance,
      "max_distance": jnp.where(reported, jnp.nan, limit),
      "comparator": jnp.asarray(comparator, jnp.float64),
      "sigma": sigma,
      "epsilon": jnp.asarray(epsilon, jnp.float64),
      "delta": jnp.asarray(delta, jnp.float64),
    }
    return Result(released, result.request, info)

  return transform


def _check_certifiable(params: Any) -> None:
  noises.check_float64(params)
  if isinstance(params, Mapping) and "params" in params:
    state = [n for n in params if n != "params" and jax.tree.leaves(params[n])]
    if state:
      raise ValueError(
        f"params has {state[0]!r} beside 'params'; certified releases allow no "
        "state, such as batch statistics, which depends on forgotten examples."
      )
