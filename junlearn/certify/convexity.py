"""Whether a model's outputs are linear in its parameters, and its loss convex.

Then the loss is convex in the parameters, and an l2 penalty makes it strongly
convex, which every bound assumes. `check_linear` reads the program of `apply`
and not its values: it may refuse a linear model that is written in an unusual
way, but accepts no other. Of losses one is known to be convex; any other is
taken on its owner's word, and refused where a sample shows that it is not.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from junlearn.loss import OutputLoss, softmax_cross_entropy
from junlearn.model import Model
from junlearn.typing import Examples, Inputs, Params

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
    "stack",
    "sub",
    "transpose",
  }
)
# Linear in each of the two operands alone.
_BILINEAR = frozenset({"conv_general_dilated", "dot_general", "mul"})
# Calls of programs that are read in turn. Functions with derivatives of their
# own are not among them: what they claim as derivative may be another's.
CALLS = frozenset({"checkpoint", "jit", "pjit", "remat2"})


# What a product of matrices may be asked for: at least the digits of its
# operands. Other algorithms round these first.
_PRECISE = frozenset(
  {
    *jax.lax.Precision,
    jax.lax.DotAlgorithmPreset.DEFAULT,
    jax.lax.DotAlgorithmPreset.F64_F64_F64,
  }
)
_SAMPLES = 64  # pairs of outputs an example at which a loss is tried
_SLACK = 1e-9  # of rounding, against values that are large


def check_linear(model: Model, params: Params, inputs: Inputs) -> None:
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


def check_loss(
  output_loss: OutputLoss, outputs: Any, examples: Examples, *, stated: str = ""
) -> str:
  """Refuses a loss that is not known or stated to be convex in the outputs.

  A loss that is stated to be so is tried between random pairs of outputs,

      l((a + b) / 2) <= (l(a) + l(b)) / 2,   l(b) >= l(a) + <grad l(a), b - a>,

  the second of which also finds a derivative that is not the loss's own.

  Args:
    output_loss: `(outputs, examples) -> [n]`.
    outputs: `[n, ...]`, for shape and scale.
    examples: the same n.
    stated: why the loss is convex, as a sentence.

  Returns:
    The sentence that a certificate keeps.

  Raises:
    ValueError: if the loss is neither, a sample shows that it is not convex, or
      it has another precision than the outputs.
  """
  if output_loss is softmax_cross_entropy:
    return "The loss is the softmax cross-entropy, convex in the outputs."
  if not stated.strip():
    raise ValueError(
      f"output_loss is {getattr(output_loss, '__name__', output_loss)!r}, and "
      "convex is empty; of losses other than softmax_cross_entropy it must "
      "say why they are convex in the outputs."
    )
  found = jax.eval_shape(output_loss, outputs, examples).dtype
  if found != outputs.dtype:
    raise ValueError(
      f"output_loss returns {found} for outputs of {outputs.dtype}; it must "
      "keep their precision."
    )
  if not bool(_seems_convex(output_loss, outputs, examples)):
    raise ValueError(
      f"output_loss is {getattr(output_loss, '__name__', output_loss)!r}, "
      "which is not convex in the outputs, or not with JAX's derivative, as a "
      "sample shows; it must be both."
    )
  return f"The loss is convex in the outputs: {stated.strip()}"


@functools.partial(jax.jit, static_argnums=0)
def _seems_convex(output_loss, outputs, examples):
  """Whether no sample of pairs contradicts it."""

  def both(key):
    keys = jax.random.split(key, 3)
    scale = jax.random.exponential(keys[2], (), outputs.dtype) * 4
    a, b = (
      outputs + scale * jax.random.normal(k, outputs.shape, outputs.dtype)
      for k in keys[:2]
    )
    at_a, pull = jax.vjp(lambda o: output_loss(o, examples), a)
    (slope,) = pull(jnp.ones_like(at_a))
    at_b = output_loss(b, examples)
    middle = output_loss((a + b) / 2, examples)
    axes = tuple(range(1, a.ndim))
    tangent = at_a + jnp.sum(slope * (b - a), axes)
    slack = _SLACK * (1 + jnp.abs(at_a) + jnp.abs(at_b) + jnp.abs(tangent))
    # Written so that NaN fails.
    below = (middle <= (at_a + at_b) / 2 + slack) & (at_b >= tangent - slack)
    return jnp.all(below)

  keys = jax.random.split(jax.random.key(0), _SAMPLES)
  return jnp.all(jax.lax.map(both, keys))


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
    if name in CALLS:
      inner = equation.params["jaxpr"]
      results, culprit = _walk(getattr(inner, "jaxpr", inner), operands)
      if culprit is not None:
        return [], culprit
    elif (
      _is_linear(name, operands)
      and _keeps_precision(equation, operands)
      and _is_precise(equation.params.get("precision"))
    ):
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


def _is_precise(precision: Any) -> bool:
  """Of a product: None, one for both operands, or one for each."""
  each = precision if isinstance(precision, tuple) else (precision,)
  return all(one is None or one in _PRECISE for one in each)


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
