"""Low-rank adapters on the dense layers of any flax module.

    y = x W + (alpha / r) (x a) b        W [in, out], a [in, r], b [r, out]

The adapters are a collection of their own: `params["lora"]` has the modules of
`params["params"]` that were chosen, each with `a` and `b`, behind the same
leading axis where layers are stacked. The module is not changed: `Lora.model`
adds the second term to each `linen.Dense` at whose path there are adapters, and
W + (alpha / r) a b is never formed. A scan over layers must slice both
collections: `variable_axes={"params": 0, "lora": 0}`.

Source: E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
ICLR 2022, arXiv 2106.09685, section 4.1.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from junlearn import validate
from junlearn import view as views
from junlearn.model import Model
from junlearn.nn.adapters import peft
from junlearn.transform import stage_key
from junlearn.typing import Key, Params


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which layers have adapters, and at which scale they act.

  Example:
    adapters = Lora("(q|v)_proj", rank=8, alpha=16)
    params = adapters.init(key, params)
    unlearn = ascent.transform(
      adapters.model(model), optimizer, view=adapters.view(), ...
    )
    plain = adapters.merge(unlearn(key, params, request).params)

  Args:
    pattern: regular expression of the layers, matched with `re.search` against
      the paths of `kernels`, such as `layers/self_attn/q_proj`.
    rank: r, at least 1 and at most the smaller side of every kernel.
    alpha: of the scale alpha / r, above 0.

  Raises:
    ValueError: if the pattern is no regular expression, or a number is out of
      range.
  """

  pattern: str
  rank: int
  alpha: float

  def __post_init__(self):
    """Refuses what no params could be adapted with."""
    validate.at_least(1, rank=self.rank)
    validate.positive(alpha=self.alpha)
    try:
      re.compile(self.pattern)
    except re.error as error:
      raise ValueError(
        f"pattern is {self.pattern!r}; it must be a regular expression "
        f"({error})."
      ) from error

  def init(self, key: Key, params: Params, *, dtype: Any = None) -> Params:
    """The params with fresh adapters.

        a ~ N(0, 1 / in),    b = 0

    A layer's factors depend on the key and its path alone. The source says a
    Gaussian and zero; the variance is ours.

    Args:
      key: of the factors.
      params: `{"params": ...}` of a flax module, and any state.
      dtype: of the factors; None means that of each kernel.

    Raises:
      ValueError: if the params are not flax's or have adapters, if the pattern
        finds no dense kernel, or if the rank is above a side of one.

    **Guarantees**: outputs are those without adapters, exactly.
    """
    if not (isinstance(params, Mapping) and "params" in params):
      raise ValueError(
        "params have no key 'params'; they must be those of a flax module."
      )
    adapters = {}
    for path, kernel in self._chosen(_without(params)).items():
      parts = path.split("/") if path else []
      *layers, inputs, outputs = kernel.shape
      dtype_here = dtype or kernel.dtype
      a = jax.random.normal(
        stage_key(key, path), (*layers, inputs, self.rank), dtype_here
      )
      adapters[*parts, "a"] = a * inputs**-0.5
      adapters[*parts, "b"] = jnp.zeros(
        (*layers, self.rank, outputs), dtype_here
      )
    return {**params, "lora": traverse_util.unflatten_dict(adapters)}

  def model(self, model: Model) -> Model:
    """The model with the adapters of its params at work, see `adapt`."""
    return model._replace(apply=self.adapt(model.apply))

  def adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the adapters of its params at work.

    Adapters may be mapped alone, many requests at once: `jax.vmap` over
    `{"params": None, "lora": 0}`. Without adapters the function is as it was.

    Example: `decoder._replace(step=adapters.adapt(decoder.step))`.

    Args:
      function: its first argument are the params; it calls flax modules with
        them, as `Model.apply` and `Decoder.step` do.

    Raises:
      ValueError: when applied, if a module that is no `linen.Dense` has
        adapters, or if they are of another rank.
    """

    @functools.wraps(function)
    def adapted(params, *args, **kwargs):
      with _ACTIVE(self), linen.intercept_methods(self._intercept):
        return function(params, *args, **kwargs)

    return adapted

  def view(self) -> views.View:
    """Adapters are free and nothing else; they must move.

    Gradients and optimizers have no leaf of the size of W. A step at which no
    adapter has a gradient, because the model was not adapted, is an error, see
    `View.must_move`.

    Raises:
      ValueError: when applied, if the params have no adapters.
    """

    def divide(params):
      base, adapters = split(params)
      return {"lora": adapters}, base

    return views.View(divide, lambda free, fixed: {**fixed, **free}, True)

  def merge(self, params: Params) -> Params:
    """`W + (alpha / r) a b` in place of W and its adapters.

    Computed in at least single precision and rounded to the dtype of W.

    Raises:
      ValueError: if the params have no adapters, or some of another rank.
    """
    base, adapters = split(params)
    leaves = traverse_util.flatten_dict(base["params"])
    factors = traverse_util.flatten_dict(adapters)
    for layer in dict.fromkeys(path[:-1] for path in factors):
      path = "/".join(layer)
      pair = factors.get((*layer, "a")), factors.get((*layer, "b"))
      kernel = leaves.get((*layer, "kernel"))
      if kernel is None or any(factor is None for factor in pair):
        raise ValueError(
          f"the adapters of {path!r} must be a and b of a dense kernel."
        )
      a, b = pair
      scale = self._scale(path, a, b)
      dtype = np.promote_types(kernel.dtype, np.float32)
      product = a.astype(dtype) @ b.astype(dtype) * scale
      leaves[*layer, "kernel"] = (kernel.astype(dtype) + product).astype(
        kernel.dtype
      )
    return {**base, "params": traverse_util.unflatten_dict(leaves)}

  def drop(self, params: Params) -> Params:
    """The params without their adapters: the original model, exactly.

    Raises:
      ValueError: if the params have no adapters.
    """
    return split(params)[0]

  def export(
    self, folder: str | Path, params: Params, *, base: str | None = None
  ) -> None:
    """Writes the adapters of a decoder as PEFT reads them; see `load`.

    Args:
      folder: made if it is not there.
      params: of `transformer.model`, stacked or not, with adapters.
      base: name or folder of the original model, for the reader.

    Raises:
      ValueError: if the params have no adapters, if these are of another rank,
        or if they belong to a module that is no part of a decoder.
      OSError: if a file cannot be written.
    """
    factors = traverse_util.flatten_dict(split(params)[1])
    for *layer, name in factors:
      if name == "a":
        pair = factors[*layer, "a"], factors[*layer, "b"]
        self._scale("/".join(layer), *pair)
    peft.write(folder, factors, rank=self.rank, alpha=self.alpha, base=base)

  def _chosen(self, params: Params) -> dict[str, jax.Array]:
    """The kernels that the pattern finds, by path."""
    found = kernels(params)
    chosen = {p: k for p, k in found.items() if re.search(self.pattern, p)}
    if not chosen:
      raise ValueError(
        f"pattern {self.pattern!r} finds no dense kernel; there are: "
        f"{', '.join(list(found)[:8]) or 'none'}."
      )
    for path, kernel in chosen.items():
      limit = min(kernel.shape[-2:])
      if self.rank > limit:
        raise ValueError(
          f"rank is {self.rank}; it must be from 1 to {limit}, the smaller "
          f"side of the kernel of {path!r}."
        )
    return chosen

  def _intercept(self, call, args, kwargs, context):
    """A module's outputs and, where it has adapters, their term."""
    module = context.module
    outputs = call(*args, **kwargs)
    if context.method_name != "__call__" or not _has_adapters(module):
      return outputs
    path = "/".join(module.path)
    if not isinstance(module, linen.Dense):
      raise ValueError(
        f"{path!r} has adapters, but is a {type(module).__name__}; only Dense "
        "can be adapted."
      )
    a: jax.Array = module.get_variable("lora", "a")
    b: jax.Array = module.get_variable("lora", "b")
    x = args[0] if args else kwargs["inputs"]
    dtypes = (leaf.dtype for leaf in (outputs, a, b))
    dtype = module.dtype or functools.reduce(np.promote_types, dtypes)
    multiply = functools.partial(jnp.matmul, precision=module.precision)
    low = multiply(x.astype(dtype), a.astype(dtype))
    low *= self._scale(path, a, b)  # here, where there is least to scale
    return outputs + multiply(low, b.astype(dtype)).astype(outputs.dtype)

  def _scale(self, path: str, a: jax.Array, b: jax.Array) -> float:
    """Alpha / r, of adapters whose rank is r."""
    for rank in (a.shape[-1], b.shape[-2]):
      if rank != self.rank:
        raise ValueError(
          f"the adapters of {path!r} have the rank {rank}, not {self.rank}."
        )
    return self.alpha / self.rank


# What jit has compiled without adapters must not be used with them.
_ACTIVE = jax.make_user_context()


def load(folder: str | Path, params: Params) -> tuple[Params, Lora]:
  """Reads adapters for a decoder, in the dtype that they were written in.

  Args:
    folder: written by `Lora.export` or by PEFT.
    params: of `transformer.model`, stacked or not, without adapters.

  Returns:
    The params with adapters, and what they were made with.

  Raises:
    ValueError: if the params have adapters, if a file is missing or damaged, if
      an option is not supported (it is named with its value), or if tensors are
      missing, unexpected or of another shape (they are listed).
  """
  factors, rank, alpha = peft.read(folder, kernels(_without(params)))
  paths = sorted({re.escape("/".join(path[:-1])) for path in factors})
  adapters = Lora(f"^({'|'.join(paths)})$", rank, alpha)
  return {**params, "lora": traverse_util.unflatten_dict(factors)}, adapters


def kernels(params: Params) -> dict[str, jax.Array]:
  """What can be adapted: dense kernels by the paths of their modules.

  Those with two axes, or three with stacked layers first. The path of a module
  that is itself a `linen.Dense` is empty.
  """
  leaves = traverse_util.flatten_dict(params["params"])
  return {
    "/".join(path[:-1]): leaf
    for path, leaf in leaves.items()
    if path[-1] == "kernel" and leaf.ndim in (2, 3)
  }


def split(params: Params) -> tuple[Params, Params]:
  """`(base, adapters)`; `{**base, "lora": adapters}` are the params again.

  Raises:
    ValueError: if the params have no adapters.
  """
  if not (isinstance(params, Mapping) and "lora" in params):
    raise ValueError("params have no adapters; Lora.init gives them some.")
  base = {name: tree for name, tree in params.items() if name != "lora"}
  return base, params["lora"]


def _without(params: Params) -> Params:
  """The params, which must not have adapters."""
  if "lora" in params:
    raise ValueError("params have adapters; merge or drop them first.")
  return params


def _has_adapters(module: linen.Module) -> bool:
  return module.has_variable("lora", "a") and module.has_variable(
    "params", "kernel"
  )
