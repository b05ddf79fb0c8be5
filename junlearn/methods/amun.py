"""AMUN: fine-tuning on the nearest adversarial examples.

A. Ebrahimpour-Boroojeny, H. Sundaram, V. Chandrasekaran, "Not All Wrong is
Bad: Using Adversarial Examples for Unlearning" (AMUN), ICML 2025, arXiv
2503.00917.

A retrained model is not wrong on the forgotten examples, only less confident;
and adversarial examples with the labels that the model itself gives them agree
with what it already computes. So each forgotten example is paired with its
nearest adversarial example, and the model is fine-tuned on both:

    D_A = { (x + delta, y_adv) : (x, y) in D_f },  argmax f(x + delta) != y
    theta' ~ argmin_theta  mean of l over S

                        with D_f            without D_f
      with D_r          D_r u D_f u D_A     D_r u D_A
      without D_r       D_f u D_A           D_A

The conflict between the neighbors lowers the confidence at x locally and
leaves the rest of the boundary where it is.

Note: with `use_forget=True`, the paper's default, the model goes on training
on the forgotten examples with their true labels. Where the request is a legal
deletion, pass `use_forget=False`.

Differences from the paper: the search gives up after `max_doublings` doublings
(the released one has no end); an example whose search failed takes no part in
D_A and is counted in `info["attack"]["failed"]`.
"""

from collections.abc import Callable
from typing import Unpack

import jax.numpy as jnp
import optax

from junlearn import objective
from junlearn.adversarial import Adversarial, nearest_adversarial
from junlearn.descent import DescendOptions, descend
from junlearn.loss import Loss, cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.relabel import union
from junlearn.transform import Result, Transform, chain
from junlearn.typing import Examples, Params

CARD = Card(
  paper="A. Ebrahimpour-Boroojeny et al., ICML 2025, arXiv 2503.00917",
  modality="classification",
  reads=("forget", "retain"),
  needs_retain=False,
  cost="a search for adversarial examples, then steps",
)


def pair(
  search: Callable[[Params, Examples], Adversarial],
  *,
  use_retain: bool = True,
  use_forget: bool = True,
) -> Transform:
  """Sets `extra` to the training set S of the table above.

  Args:
    search: `(params, examples) -> Adversarial`, by `nearest_adversarial`.
    use_retain: S holds D_r, where the request has it.
    use_forget: S holds D_f with true labels.
  """

  def transform(key, params, request):
    del key  # the search has no random start
    found = search(params, request.forget)
    present = jnp.ones(found.failed.shape, jnp.float32)
    present = request.forget.get("weight", present)
    adversarial = {
      **request.forget,
      "input": found.input,
      "label": found.label,
      "weight": jnp.where(found.failed, 0, present),
    }
    extra = union(
      request.retain if use_retain else None,
      request.forget if use_forget else None,
      adversarial,
    )
    info = {
      "failed": jnp.sum(found.failed & (present > 0)),
      "distance": found.distance,
      "epsilon": found.epsilon,
      "label": found.label,
    }
    return Result(params, request._replace(extra=extra), info)

  return transform


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  use_retain: bool = True,
  use_forget: bool = True,
  search: Callable[[Params, Examples], Adversarial] | None = None,
  loss: Callable[[Model], Loss] = cross_entropy,
  **options: Unpack[DescendOptions],
) -> Transform:
  """AMUN; reads `forget`, and `retain` if the request has it.

  Published setting: 10 epochs, SGD with momentum 0.9, weight decay 5e-4, batch
  128, learning rate 0.01 falling tenfold every epoch (released code).

  Args:
    model: the model to unlearn from; its inputs lie in [0, 1], with any
      normalization inside the model.
    optimizer: any optax transformation.
    use_retain: train on D_r too, where the request has it.
    use_forget: train on D_f with its true labels too; False for deletion.
    search: how adversarial examples are found; `nearest_adversarial(model)`
      by default. Transforms that share one share its compiled program.
    loss: per-example loss of a model.
    **options: of `descent.descend`, see `descent.DescendOptions`.
  """
  return chain(
    attack=pair(
      search or nearest_adversarial(model),
      use_retain=use_retain,
      use_forget=use_forget,
    ),
    descend=descend(
      objective.weighted(loss(model), extra=1.0), optimizer, **options
    ),
  )
