"""Unlearning is a pure transform over a request.

    Transform: (key, params, request) -> Result(params, request, info)

A paper is a `chain` of named stages. The same value can be jitted, vmapped
over seeds, requests or clients, and run stage by stage.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax

from junlearn import tree, validate
from junlearn.typing import Examples, Info, Key, Params


class Request(NamedTuple):
  """What to forget and what to keep.

  Examples are pytrees of arrays with one example per row of axis 0. The
  library's own data sets are dicts with `input`, `label`, `id` and, where
  examples may be absent, `weight` (`[n]`, 0 = absent).

  Attributes:
    forget: the examples to delete, or None where no stage reads them.
    retain: the examples to keep, or None where they are not available.
    extra: examples made by a stage for the stages after it (relabeled or
      adversarial ones, say); None in a fresh request.
  """

  forget: Examples
  retain: Examples
  extra: Examples = None


class Result(NamedTuple):
  """What a transform returns.

  Attributes:
    params: the new weights; structure, shapes and dtypes of the given ones.
    request: what the next stage of a chain reads; of `replay`, all requests.
    info: diagnostics of the stage, never carried on.
  """

  params: Params
  request: Request | Sequence[Request]
  info: Info


class Transform(Protocol):
  """A pure function; the caller decides what to jit, vmap or pmap."""

  def __call__(self, key: Key, params: Params, request: Request) -> Result:
    """Applies the transform."""


def stage_key(key: Key, name: str) -> jax.Array:
  """The key of a stage: folded from its name, not from its position.

  Adding or removing a stage leaves the randomness of the others unchanged, so
  that ablations stay paired.
  """
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def chain(**stages: Transform) -> Transform:
  """Runs the stages in order; each name is a key of `info`.

  Args:
    **stages: transforms; params and request flow from each to the next.

  Raises:
    ValueError: if there is no stage.
  """
  if not stages:
    raise ValueError("chain: no stages were given; at least one is needed.")

  def transform(key, params, request):
    info = {}
    for name, stage in stages.items():
      result = stage(stage_key(key, name), params, request)
      params, request, info[name] = result
    return Result(params, request, info)

  return transform


def repeat(stage: Transform, n: int) -> Transform:
  """`n` rounds of one stage, each reading the request as first given.

  `info` is the rounds' infos stacked on a new axis 0. Round `i` uses the key
  `fold_in(key, i)`.

  Raises:
    ValueError: if `n` is below 1.
  """
  validate.at_least(1, n=n)

  def transform(key, params, request):
    rounds = replay(stage)(key, params, [request] * n)
    return rounds._replace(request=request)

  return transform


def replay(
  stage: Transform,
) -> Callable[[Key, Params, Sequence[Request]], Result]:
  """A sequence of successive requests, answered one after the other.

  The result takes `Sequence[Request]` in place of one request: request `k`
  starts from the weights that request `k - 1` left, with key
  `fold_in(key, k)`. `info` is stacked on a new axis 0 where all requests have
  the same shapes, as blocks of one size have.

  Raises:
    ValueError: (when applied) if the sequence is empty.
  """

  def transform(key, params, requests: Sequence[Request]):
    if not requests:
      raise ValueError("replay: the sequence of requests is empty.")
    infos = []
    for index, request in enumerate(requests):
      step_key = jax.random.fold_in(key, index)
      params, _, info = stage(step_key, params, request)
      infos.append(info)
    return Result(params, requests, tree.stack(infos))

  return transform
