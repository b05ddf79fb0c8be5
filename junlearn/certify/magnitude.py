"""The moduli of all terms that a model's outputs are summed from.

Outputs that are affine in the params, `z = J w + b`, may be sums of terms far
larger than themselves, which cancel; rounding is relative to the terms. So the
model's program is run with every number replaced by its modulus and every
difference by a sum, which gives

    m = A |w| + beta,   A >= |J|, beta >= |b|,

what rounding in the outputs is relative to, whatever the program.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from junlearn.certify.convexity import CALLS
from junlearn.model import Model
from junlearn.typing import Inputs, Params


def outputs(
  model: Model, params: Params, inputs: Inputs
) -> Callable[[Any], Any]:
  """`|w| -> m`, affine in its argument; see above.

  Args:
    model: passes `convexity.check_linear`; in evaluation mode.
    params: give shapes and dtypes.
    inputs: `[n, ...]`.
  """
  closed = jax.make_jaxpr(lambda p: model.apply(p, inputs)[0])(params)

  def run(moduli):
    operands = [(leaf, True) for leaf in jax.tree.leaves(moduli)]
    ((value, depends),) = _run(closed.jaxpr, closed.consts, operands)
    return value if depends else jnp.abs(value)

  return run


def _run(jaxpr, consts, operands):
  """Values of a program, and whether they depend on the params.

  Those that do are moduli; the others are as they are.
  """
  found = dict(zip(jaxpr.constvars, [(c, False) for c in consts], strict=True))
  found |= dict(zip(jaxpr.invars, operands, strict=True))

  def read(atom):
    is_literal = isinstance(atom, core.Literal)
    return (atom.val, False) if is_literal else found[atom]

  for equation in jaxpr.eqns:
    given = [read(atom) for atom in equation.invars]
    if not any(depends for _, depends in given):
      results = [(v, False) for v in _bind(equation, [v for v, _ in given])]
    elif equation.primitive.name in CALLS:
      inner = equation.params["jaxpr"]
      body = getattr(inner, "jaxpr", inner)
      results = _run(body, getattr(inner, "consts", ()), given)
    else:
      results = [(v, True) for v in _moduli(equation, given)]
    found |= dict(zip(equation.outvars, results, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _moduli(equation, given):
  """An operation that is linear in what depends, on moduli."""

  def modulus(value, depends):
    is_float = jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return jnp.abs(value) if is_float and not depends else value

  values = [modulus(*one) for one in given]
  name = equation.primitive.name
  if name == "neg":
    return values
  if name == "sub":
    return [values[0] + values[1]]
  return _bind(equation, values)


def _bind(equation, values):
  primitive = equation.primitive
  params = primitive.get_bind_params(equation.params)
  results = primitive.bind(*values, **params)
  return results if primitive.multiple_results else [results]
