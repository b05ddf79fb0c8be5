"""Fisher forgetting (FF): noise where the retained examples do not look.

    F_j = mean_{x in D_r} sum_y p(y|x) (d l(f(x), y) / d theta_j)^2
    var_j = alpha min(1 / (F_j + 1e-8), 1e3)
    theta' = theta + sqrt(var) N(0, I)

Source: A. Golatkar, A. Achille, S. Soatto, "Eternal Sunshine of the Spotless
Net: Selective Forgetting in Deep Networks", CVPR 2020, arXiv 1911.04933, and
the released code, which the rules below follow:

- the clamp is 1e2 in the last layer;
- in kernels, `var` is averaged over the input channels;
- `var` is ten times as large in the last layer and in vectors;
- where a class is forgotten, its outputs in the last layer are drawn from
  N(0, 1e-4).

The clamps keep dead units, whose Fisher information is 0, from overflowing. No
training takes place, and no guarantee is given.

Differences from the papers: the Fisher information is exact per example; a
squared gradient of a batch mean, as some releases take it, is smaller by about
the batch size, and `alpha` has to be tuned to it.
"""

import re

import jax
import jax.numpy as jnp
import optax

from junlearn import tree, validate
from junlearn.curvature.fisher_matrix import diagonal_fisher
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Request, Result, Transform
from junlearn.typing import Key, Params, PyTree
from junlearn.view import View, full, restrict

CARD = Card(
  paper="A. Golatkar et al., CVPR 2020, arXiv 1911.04933",
  modality="classification",
  reads=("retain",),
  needs_retain=True,
  cost="a gradient for each retained example and class",
)

_FLOOR = 1e-8
_CLASS_VARIANCE = 1e-4


def variance(fisher: Params, *, alpha: float, last_layer: PyTree) -> Params:
  """The noise's variance, by the rules above.

  Args:
    fisher: diagonal Fisher information, a pytree like the params; kernels end
      with the axes `[inputs, outputs]`, as flax's do.
    alpha: scale of the variance, at least 0.
    last_layer: pytree of bools, which leaves belong to it.
  """

  def of_leaf(f, is_last):
    var = alpha * jnp.minimum(1 / (f + _FLOOR), 1e2 if is_last else 1e3)
    if f.ndim > 1:
      var = jnp.broadcast_to(jnp.mean(var, axis=-2, keepdims=True), f.shape)
    return 10 * var if is_last or f.ndim == 1 else var

  return jax.tree.map(of_leaf, fisher, last_layer)


def transform(
  model: Model,
  *,
  alpha: float = 1e-6,
  forget_class: int | None = None,
  last_layer: str | None = None,
  block_size: int | None = None,
  view: View | None = None,
) -> Transform:
  """Fisher forgetting; reads `retain`.

  Args:
    model: gives logits `[n, classes]`; the model to unlearn from, in
      evaluation mode.
    alpha: scale of the noise's variance, at least 0.
    forget_class: the class that is forgotten, where it is one.
    last_layer: regular expression that finds the names of the last layer's
      leaves; None means leaves whose last axis is as long as there are
      classes, as released.
    block_size: examples whose gradients are held at once, see
      `curvature.diagonal_fisher`.
    view: which leaves are free; None means `view.full()`.

  Returns:
    A transform whose info has `noise`, the norm of `theta' - theta`.

  Raises:
    ValueError: if `alpha` or `forget_class` is negative; and when applied, if
      the request has no retained examples, or no leaf is of the last layer.
  """
  validate.at_least(0, alpha=alpha)
  if forget_class is not None:
    validate.at_least(0, forget_class=forget_class)
  view = view or full()

  @jax.jit  # called outside jit, it would else compile its loops every time
  def scrub(key: Key, params: Params, request: Request):
    free_model, free = restrict(model, view, params)
    fisher = diagonal_fisher(
      free_model, free, request.retain, block_size=block_size
    )
    one = jax.tree.map(lambda leaf: leaf[:1], request.retain["input"])
    logits = jax.eval_shape(free_model.apply, free, one)[0]
    last = _last_layer(free, last_layer, logits.shape[-1])
    var = variance(fisher, alpha=alpha, last_layer=last)
    mean = free
    if forget_class is not None:
      mean, var = (
        jax.tree.map(
          lambda leaf, here, v=value: (
            leaf.at[..., forget_class].set(v) if here else leaf
          ),
          values,
          last,
        )
        for values, value in ((mean, 0), (var, _CLASS_VARIANCE))
      )
    noise = optax.tree.random_like(key, free)
    moved = jax.tree.map(lambda m, v, e: m + jnp.sqrt(v) * e, mean, var, noise)
    change = optax.tree.norm(optax.tree.sub(moved, free))
    return view.merge(moved, view.split(params)[1]), {"noise": change}

  def transform(key, params, request):
    if request.retain is None:
      raise ValueError("fisher_forget: the request has no retain examples.")
    params, info = scrub(key, params, request._replace(forget=None, extra=None))
    return Result(params, request, info)

  return transform


def _last_layer(free, pattern, num_classes):
  def is_last(name, leaf):
    if pattern is not None:
      return bool(re.search(pattern, name))
    return leaf.ndim > 0 and leaf.shape[-1] == num_classes

  found = tree.map_leaves(is_last, free)
  if not any(jax.tree.leaves(found)):
    raise ValueError(
      f"fisher_forget: last_layer is {pattern!r}, which finds no leaf; the "
      f"names begin: {', '.join(jax.tree.leaves(tree.names(free))[:5])}."
    )
  return found
