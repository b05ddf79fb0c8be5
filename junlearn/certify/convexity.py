"""Whether a model's outputs are linear in its parameters.

Then a loss that is convex in the outputs is convex in the parameters, and an
l2 penalty makes it strongly convex, which every bound assumes. The check reads
the program of `apply` and not its values: it may refuse a linear model that is
written in an unusual way, but accepts no other.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from junlearn.model import Model

# Linear in all floats together; places and choices may not depend.
_LINEAR = frozenset(
  {
    "add",
    "add_any",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "cumsum",
    "dynamic_slice",
    "expand_dims",
    "gather",
    "neg",
    "pad",
    "reduce_sum",
    "reshape",
    "rev",
    "select_n",
    "slice",
    "split",
    "squeeze",
    "sub",
    "transpose",
  }
)
# Linear in each of the two operands alone.
_BILINEAR = frozenset({"conv_general_dilated", "dot_general", "mul"})
# Calls of programs that are read in turn. Functions with derivatives of their
# own are not among them: what they claim as derivative may be another's.
_CALLS = frozenset({"checkpoint", "jit", "pjit", "remat2"})


def check_linear(model: Model, params: Any, inputs: Any) -> None:
  """Refuses a model whose outputs are not linear in its parameters.

  Linear here means affine: `outputs = A(inputs) params + b(inputs)`.

  Args:
    model: checked in evaluation mode.
    params: gives shapes and dtypes.
    inputs: `[n, ...]`, as the model reads them.

  Raises:
    ValueError: naming the operation that is not linear.

  **Guarantees**: a model that passes is affine in all its parameters, in exact
  arithmetic, and JAX's derivative is its derivative.
  """
  closed = jax.make_jaxpr(lambda p: model.apply(p, inputs)[0])(params)
  culprit = _walk(closed.jaxpr, [True] * len(closed.jaxpr.invars))[1]
  if culprit is not None:
    raise ValueError(
      f"the model is not linear in its parameters (operation {culprit!r}); "
      "certified unlearning needs a linear head, on features that were not "
      "trained on the data to forget."
    )


def _walk(jaxpr: Any, depends: Sequence[bool]) -> tuple[list[bool], str | None]:
  """Which outputs depend on the inputs marked, and what is not linear.

  An operation that is not linear counts even where its result is not used.
  """
  marked = {v for v, d in zip(jaxpr.invars, depends, strict=True) if d}

  def is_marked(atom):
    return not isinstance(atom, core.Literal) and atom in marked

  for equation in jaxpr.eqns:
    operands = [is_marked(atom) for atom in equation.invars]
    if not any(operands):
      continue
    name = equation.primitive.name
    if name in _CALLS:
      inner = equation.params["jaxpr"]
      results, culprit = _walk(getattr(inner, "jaxpr", inner), operands)
      if culprit is not None:
        return [], culprit
    elif _is_linear(name, operands) and _keeps_precision(equation, operands):
      results = [True] * len(equation.outvars)
    else:
      return [], name
    pairs = zip(equation.outvars, results, strict=True)
    marked |= {variable for variable, result in pairs if result}
  return [is_marked(atom) for atom in jaxpr.outvars], None


def _is_linear(name: str, operands: Sequence[bool]) -> bool:
  if name in _BILINEAR:
    return sum(operands) <= 1
  return name in _LINEAR or (name == "div" and not operands[1])


def _keeps_precision(equation: Any, operands: Sequence[bool]) -> bool:
  """What depends is a float; rounding to fewer digits is a step function."""
  before = [
    atom.aval.dtype
    for atom, marked in zip(equation.invars, operands, strict=True)
    if marked
  ]
  after = equation.outvars[0].aval.dtype
  floats = all(
    jnp.issubdtype(dtype, jnp.floating) for dtype in (after, *before)
  )
  return floats and all(
    jnp.finfo(after).nmant >= jnp.finfo(dtype).nmant for dtype in before
  )
