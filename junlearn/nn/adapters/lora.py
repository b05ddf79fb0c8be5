"""Low-rank adapters on the dense maps of any flax module.

    y = x W + (alpha / r) (x a) b        W [in, out], a [in, r], b [r, out]

The adapters are a collection of their own: `params["lora"]` has the modules of
`params["params"]` that were chosen, each with `a` and `b`, behind the same
leading axis where layers are stacked. The module is not changed: whatever is
called within `adapt` adds the second term to each `linen.Dense` at whose path
there are adapters, and W + (alpha / r) a b is never formed. A scan over layers
must slice both collections: `variable_axes={"params": 0, "lora": 0}`.

Adapters are state to `view.full()`, hence fixed; `view()` frees them and them
alone, so that gradients and optimisers have no leaf of the size of W.

Source: E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
ICLR 2022, arXiv 2106.09685, section 4.1.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from junlearn import view as views
from junlearn.model import Model
from junlearn.transform import stage_key

# (key, shape of W [..., in, out], rank, dtype) -> (a, b)
Factors = Callable[..., tuple[jax.Array, jax.Array]]
# (outputs of the Dense, its inputs x, x -> (alpha / r) (x a) b) -> outputs
Rule = Callable[..., jax.Array]

# What jit has compiled without adapters must not be used with them.
_RULE = jax.make_user_context()


def gaussian(key, shape, rank, dtype):
  """`a ~ N(0, 1 / in)` and `b = 0`: at first, adapters change nothing.

  The source says a Gaussian and zero; the variance is ours.
  """
  *layers, inputs, outputs = shape
  a = jax.random.normal(key, (*layers, inputs, rank), dtype) * inputs**-0.5
  return a, jnp.zeros((*layers, rank, outputs), dtype)


def attach(
  key: jax.Array,
  params: Any,
  pattern: str,
  *,
  rank: int,
  dtype: Any = None,
  factors: Factors = gaussian,
) -> Any:
  """The params with adapters on every dense kernel that a pattern finds.

  A module's factors depend on the key and its path alone.

  Args:
    key: of the factors.
    params: `{"params": ...}` of a flax module, and any state.
    pattern: regular expression, matched with `re.search` against the paths of
      `kernels`, such as `layers/self_attn/q_proj`.
    rank: r, from 1 to the smaller side of every kernel.
    dtype: of the factors; None means that of each kernel.
    factors: `(key, shape of the kernel, rank, dtype) -> (a, b)`.

  Raises:
    ValueError: if the params are not flax's or have adapters, if the pattern is
      no regular expression or finds no dense kernel, or if the rank is out of
      range.

  **Guarantees**: with `gaussian`, outputs are those without adapters, exactly.
  """
  if not (isinstance(params, Mapping) and "params" in params):
    raise ValueError(
      "attach: params must be those of a flax module, a dict with the key "
      "'params'."
    )
  if "lora" in params:
    raise ValueError("attach: params have adapters; merge or drop them first.")
  try:
    matcher = re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f"attach: pattern {pattern!r} is not a regular expression ({error})."
    ) from error
  found = kernels(params)
  chosen = {path: k for path, k in found.items() if matcher.search(path)}
  if not chosen:
    raise ValueError(
      f"attach: pattern {pattern!r} finds no dense kernel; there are: "
      f"{', '.join(list(found)[:8]) or 'none'}."
    )
  adapters = {}
  for path, kernel in chosen.items():
    limit = min(kernel.shape[-2:])
    if not 1 <= rank <= limit:
      raise ValueError(
        f"attach: rank is {rank}; it must be from 1 to {limit}, the smaller "
        f"side of the kernel of {path!r}."
      )
    a, b = factors(
      stage_key(key, path), kernel.shape, rank, dtype or kernel.dtype
    )
    adapters |= {(*_parts(path), "a"): a, (*_parts(path), "b"): b}
  return {**params, "lora": traverse_util.unflatten_dict(adapters)}


def adapt(function: Callable[..., Any], *, alpha: float) -> Callable[..., Any]:
  """The function with the adapters of its params at work.

  Adapters may be mapped alone, many requests at once: `jax.vmap` over
  `{"params": None, "lora": 0}`. Without adapters the function is as it was.

  Example: `decoder._replace(step=lora.adapt(decoder.step, alpha=16.0))`.

  Args:
    function: its first argument are the params; it calls flax modules with
      them, as `Model.apply` and `Decoder.step` do.
    alpha: of the scale alpha / r.

  Raises:
    ValueError: when applied, if a module that is no `linen.Dense` has adapters.
  """
  return intercept(function, _add, alpha=alpha)


def adapt_model(model: Model, *, alpha: float) -> Model:
  """The model with the adapters of its params at work, see `adapt`."""
  return model._replace(apply=adapt(model.apply, alpha=alpha))


def intercept(
  function: Callable[..., Any], rule: Rule, *, alpha: float
) -> Callable[..., Any]:
  """As `adapt`, by another rule than the sum.

  Args:
    function: its first argument are the params.
    rule: `(outputs, x, product) -> outputs`, where `product` is
      `x -> (alpha / r) (x a) b` in the dtype of the outputs; a function of
      module level, since jit's cache knows it by its identity.
    alpha: of the scale alpha / r.
  """

  def interceptor(call, args, kwargs, context):
    module = context.module
    outputs = call(*args, **kwargs)
    if context.method_name != "__call__" or not _has_adapters(module):
      return outputs
    if not isinstance(module, linen.Dense):
      raise ValueError(
        f"adapt: {'/'.join(module.path)!r} has adapters, but is a "
        f"{type(module).__name__}; only Dense can be adapted."
      )
    a, b = (module.get_variable("lora", name) for name in "ab")

    def product(x):
      dtypes = (leaf.dtype for leaf in (outputs, a, b))
      dtype = module.dtype or functools.reduce(np.promote_types, dtypes)
      multiply = functools.partial(jnp.matmul, precision=module.precision)
      low = multiply(x.astype(dtype), a.astype(dtype))
      low *= alpha / a.shape[-1]  # here, where there is least to scale
      return multiply(low, b.astype(dtype)).astype(outputs.dtype)

    return rule(outputs, args[0] if args else kwargs["inputs"], product)

  @functools.wraps(function)
  def intercepted(params, *args, **kwargs):
    with _RULE((rule, alpha)), linen.intercept_methods(interceptor):
      return function(params, *args, **kwargs)

  return intercepted


def view() -> views.View:
  """Adapters are free and nothing else; they must move.

  A step at which no adapter has a gradient, because the model was not adapted,
  is an error, see `View.must_move`.

  Raises:
    ValueError: when applied, if the params have no adapters.
  """

  def divide(params):
    base, adapters = split(params)
    return {"lora": adapters}, base

  return views.View(divide, lambda free, fixed: {**fixed, **free}, True)


def num_free(params: Any) -> int:
  """How many numbers the adapters have."""
  return sum(leaf.size for leaf in jax.tree.leaves(split(params)[1]))


def kernels(params: Any) -> dict[str, jax.Array]:
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


def split(params: Any) -> tuple[Any, Any]:
  """`(base, adapters)`; `{**base, "lora": adapters}` are the params again.

  Raises:
    ValueError: if the params have no adapters.
  """
  if not (isinstance(params, Mapping) and "lora" in params):
    raise ValueError("params have no adapters; attach gives them some.")
  base = {name: tree for name, tree in params.items() if name != "lora"}
  return base, params["lora"]


def drop(params: Any) -> Any:
  """The params without their adapters: the original model, exactly."""
  return split(params)[0]


def merge(params: Any, *, alpha: float) -> Any:
  """`W + (alpha / r) a b` in place of W and its adapters.

  Computed in at least single precision and rounded to the dtype of W.
  """
  return _shifted(*split(params), alpha)


def unmerge(params: Any, adapters: Any, *, alpha: float) -> Any:
  """`merge` undone, up to rounding in the dtype of W.

  Args:
    params: merged.
    adapters: those that were merged, from `split`.
    alpha: that they were merged with.
  """
  return {**_shifted(params, adapters, -alpha), "lora": adapters}


def _add(outputs, x, product):
  return outputs + product(x)


def _has_adapters(module: linen.Module) -> bool:
  return module.has_variable("lora", "a") and module.has_variable(
    "params", "kernel"
  )


def _parts(path: str) -> list[str]:
  return path.split("/") if path else []


def _shifted(base: Any, adapters: Any, alpha: float) -> Any:
  """The base with `(alpha / r) a b` added to each kernel with adapters."""
  leaves = traverse_util.flatten_dict(base["params"])
  factors = traverse_util.flatten_dict(adapters)
  for *module, name in factors:
    if name == "b":
      continue
    a, b = factors[*module, "a"], factors[*module, "b"]
    kernel = leaves[*module, "kernel"]
    dtype = np.promote_types(kernel.dtype, np.float32)
    product = a.astype(dtype) @ b.astype(dtype) * (alpha / a.shape[-1])
    leaves[*module, "kernel"] = (kernel.astype(dtype) + product).astype(
      kernel.dtype
    )
  return {**base, "params": traverse_util.unflatten_dict(leaves)}
