"""What low-rank factors can see of a full gradient.

At the usual initial value, b = 0, the gradient of a is zero too. A probe has
both factors random and orthonormal, and leaves the model as it is:

    z = s (stop(x) a) b,    y = x W + z - stop(z),    s = alpha / r

Outputs, and gradients with respect to outputs, are those of the base model,
and with G = dL/dW [in, out] the gradients of the factors are

    dL/da = s G b^T  [in, r],    dL/db = s a^T G  [r, out],

so that G is known on the column space of a and on the row space of b.

Source: Y. Liu et al., "Recover-to-Forget: Gradient Reconstruction from LoRA
for Efficient LLM Unlearning", arXiv 2512.07374. Difference from the paper: it
does not say how its adapters are initialised.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from junlearn.nn.adapters import lora


def orthonormal(key, shape, rank, dtype):
  """`a^T a = b b^T = 1`, uniformly distributed."""
  *layers, inputs, outputs = shape
  draw = jax.nn.initializers.orthogonal()
  keys = jax.random.split(key, 2)

  def factor(key, shape):
    wide = np.promote_types(dtype, np.float32)
    if not layers:
      return draw(key, shape, wide)
    each = jax.random.split(key, layers[0])
    return jax.vmap(lambda key: draw(key, shape, wide))(each)

  a = factor(keys[0], (inputs, rank))
  b = factor(keys[1], (rank, outputs))
  return a.astype(dtype), b.astype(dtype)


def attach(
  key: jax.Array, params: Any, pattern: str, *, rank: int, dtype: Any = None
) -> Any:
  """`lora.attach` with `orthonormal` factors; see there."""
  return lora.attach(
    key, params, pattern, rank=rank, dtype=dtype, factors=orthonormal
  )


def probe(function: Callable[..., Any], *, alpha: float) -> Callable[..., Any]:
  """The function, unchanged in value, whose factors have gradients.

  Args:
    function: as for `lora.adapt`; its params have factors from `attach`.
    alpha: of the scale s = alpha / r; the rank makes it 1.

  **Guarantees**: outputs are those of the function without factors, exactly,
  where they are finite.
  """
  return lora.intercept(function, _observe, alpha=alpha)


def _observe(outputs, x, product):
  z = product(jax.lax.stop_gradient(x))
  return outputs + (z - jax.lax.stop_gradient(z))
