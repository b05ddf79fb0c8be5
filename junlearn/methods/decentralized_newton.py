"""Certified unlearning in decentralized federated learning.

Clients train without a server, and what one of them was asked to delete has
mixed into every model. A Newton correction, from curvature that all clients
measure on their retained data, takes it out again; noise then makes it
certified (`certify.certified` with `clients.retraining.bound`).

Stacked form, one round of training being T(X) = W X - gamma grad F(X): T is
gradient descent on

    Psi(X) = sum_i F_i(x_i) + <X, (I - W) X> / (2 gamma),

so the correction of all N models at once is a Newton step on Psi without the
forgotten examples,

    [blockdiag(Hess F_i^-) + (I - W) / gamma] E = -(X - T^-(X)) / gamma,

solved by conjugate gradients: a curvature product at every client and one
communication round with its neighbors each. With tau > 1 local steps before a
round T is no gradient, and Gauss-Newton steps are taken on |X - T^-(X)|^2 / 2.

Consensus form: one correction of the mean model, broadcast to all,

    x = mean_i x_i,   x <- x - [mean_i Hess F_i^-(x)]^{-1} g.

Source: H. Wu et al., "Certified Unlearning in Decentralized Federated
Learning", arXiv 2601.06436. The stacked form and the bounds are derived here.

Differences from the paper, of which only the abstract and summaries could be
read: the stacked form is the default, because it stands beside retraining by
the same rounds, also where clients' data differ; the consensus replaces every
client's model, because differences of models would be released without noise.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from junlearn import validate
from junlearn.certify import bounds
from junlearn.certify.premises import retained
from junlearn.clients import rounds
from junlearn.clients.gossip import dense
from junlearn.clients.retraining import (
  Form,
  consensus,
  for_all,
  mean_gradient,
)
from junlearn.clients.training import Training
from junlearn.curvature import Curvature, Matvec, newton, operator
from junlearn.curvature.solve import Inner, add_scaled
from junlearn.loss import OutputLoss, of_outputs, softmax_cross_entropy
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.parallel.across import AXES, Backend
from junlearn.transform import Result, Transform
from junlearn.typing import Examples, Params, Vector

CARD = Card(
  paper="H. Wu et al., 2026, arXiv 2601.06436",
  modality="decentralized",
  reads=("retain",),
  needs_retain=True,
  cost="a Newton step takes up to `cg_steps` HVPs, each a communication round",
  guarantee="(ε, δ) under `certify.certified`, for linear models",
)


def transform(
  model: Model,
  training: Training,
  *,
  form: Form = "stacked",
  max_distance: float = 0.0,
  num_steps: int = 10,
  curvature: Curvature = "hessian",
  damping: float = 0.0,
  tolerance: float = 1e-3,
  cg_steps: int = 1000,
  smoothness: float | None = None,
  output_loss: OutputLoss = softmax_cross_entropy,
  backend: Backend = "vmap",
) -> Transform:
  """The correction of all clients' models; reads `retain`.

  Params are stacked `[clients, ...]`, examples `[clients, n, ...]` with
  `weight` (`clients.data`). A client that has left has no examples to retain,
  and the training's graph is that without it (`topology.remove`). The stacked
  form gives it the params 0; the consensus goes to every row, so that noise
  shared by the rows stays hidden.

  Args:
    model: of one client, in evaluation mode.
    training: how the clients trained, and would retrain.
    form: see above. The consensus is the minimizer of the mean risk, which is
      not where training with a constant step ends.
    max_distance: stop once the residual proves the distance to retraining to
      be at most this (`retraining.bound`, less its allowance for rounding); 0
      takes all steps that lower the residual.
    num_steps: most Newton steps, at least 1.
    curvature: what stands for the Hessians of the losses, see
      `curvature.operator`; with several local steps only "hessian".
    damping: added to `l2` in the curvature alone, at least 0.
    tolerance: relative residual of each linear solve.
    cg_steps: most products, hence communication rounds, a solve.
    smoothness: beta, at least the largest eigenvalue of any client's Hessian,
      penalty included (`certify.constants`); several local steps need it.
    output_loss: `(outputs, examples) -> [n]`.
    backend: how the clients are run, see `across`; not "map".

  Returns:
    A transform whose info is the `curvature.NewtonInfo`.

  Raises:
    ValueError: if an argument is out of range; when applied, if the request has
      no `retain` or the mixing matrix another number of clients.
  """
  validate.positive(tolerance=tolerance)
  validate.at_least(0, max_distance=max_distance, damping=damping)
  validate.at_least(1, num_steps=num_steps, cg_steps=cg_steps)
  system = _system(
    model, training, form, curvature, damping, smoothness, output_loss
  )

  def body(params, retain):
    params, info = newton(
      lambda x: system.gradient(x, retain),
      lambda x: system.matrix(x, retain),
      system.start(params),
      num_steps=num_steps,
      target=float(max_distance / system.distance),
      tolerance=tolerance,
      max_steps=cg_steps,
      inner=system.inner,
    )
    return params, info

  correct = for_all(body, backend)

  def stage(key, params, request):
    del key
    params, info = correct(params, retained(request))
    # The info is the same for all clients.
    return Result(params, request, jax.tree.map(lambda leaf: leaf[0], info))

  return stage


class _System(NamedTuple):
  """The equations that a correction solves, as bodies of one client.

  Attributes:
    start: params -> x.
    gradient: (x, retain) -> what is to become 0.
    matrix: (x, retain) -> Matvec, its derivative.
    inner: inner product of two x.
    distance: |gradient| times this is at least the distance to retraining.
  """

  start: Callable[[Params], Params]
  gradient: Callable[[Params, Examples], Vector]
  matrix: Callable[[Params, Examples], Matvec]
  inner: Inner
  distance: float


def _system(
  model, training, form, curvature, damping, smoothness, output_loss
) -> _System:
  validate.one_of(get_args(Form), form=form)
  validate.positive(l2=training.l2, step_size=training.step_size)
  validate.at_least(1, local_steps=training.local_steps)
  loss = of_outputs(model, output_loss)
  product = operator(curvature, model, output_loss)
  scale = rounds.scale(training.weighting)

  def matrix(x, retain):
    """Hess F_i^-, or what stands for it."""
    of_loss, factor = product(x, retain), scale(retain)

    def matvec(v):
      scaled = _scale(factor, of_loss(v))
      return add_scaled(scaled, training.l2 + damping, v)

    return matvec

  if form == "consensus":
    return _consensus(training, loss, matrix)
  if training.local_steps == 1:
    return _stacked(training, loss, matrix)
  if curvature != "hessian" or damping:
    raise ValueError(
      f"curvature is {curvature!r} and damping is {damping}; with "
      f"{training.local_steps} local steps they must be 'hessian' and 0."
    )
  return _several_steps(training, loss, smoothness)


def _stacked(training, loss, of_risk) -> _System:
  round_, mix = training.round(loss), dense(training.mixing)
  gamma = training.step_size

  def gradient(x, retain):
    return _scale(1 / gamma, optax.tree.sub(x, round_(x, retain)))

  def matrix(x, retain):
    hessian = of_risk(x, retain)

    def matvec(v):
      apart = optax.tree.sub(v, mix(v))
      return add_scaled(hessian(v), 1 / gamma, apart)

    return matvec

  return _System(lambda x: x, gradient, matrix, _inner, 1 / training.l2)


def _several_steps(training, loss, smoothness) -> _System:
  """Gauss-Newton on |X - T(X)|^2 / 2, with T(X) = W local(X)."""
  if smoothness is None:
    raise ValueError(
      f"smoothness is None; {training.local_steps} local steps need it."
    )
  contraction = bounds.local_contraction(
    step_size=training.step_size,
    l2=training.l2,
    smoothness=smoothness,
    num_local_steps=training.local_steps,
  )
  mix = dense(training.mixing)
  local = rounds.adapt_then_combine(
    training.risk(loss),
    lambda x: x,
    step_size=training.step_size,
    num_steps=training.local_steps,
  )

  def residual(x, retain):
    return optax.tree.sub(x, mix(local(x, retain)))

  def transposed(x, retain):
    """(I - J)^T, W being symmetric."""
    _, pull = jax.vjp(lambda x: local(x, retain), x)
    return lambda v: optax.tree.sub(v, pull(mix(v))[0])

  def gradient(x, retain):
    return transposed(x, retain)(residual(x, retain))

  def matrix(x, retain):
    _, push = jax.linearize(lambda x: local(x, retain), x)
    back = transposed(x, retain)
    return lambda v: back(optax.tree.sub(v, mix(push(v))))

  # The smallest singular value of I - J is at least 1 - kappa.
  distance = bounds.fixed_point_residual(1.0, contraction=contraction) ** 2
  return _System(lambda x: x, gradient, matrix, _inner, float(distance))


def _consensus(training, loss, of_risk) -> _System:
  """All clients solve the same equations for the same x."""
  gradient = mean_gradient(training, loss)
  mean = consensus(training)

  def matrix(x, retain):
    hessian = of_risk(x, retain)
    return lambda v: mean(hessian(v))

  return _System(mean, gradient, matrix, optax.tree.vdot, 1 / training.l2)


def _inner(a, b):
  return jax.lax.psum(optax.tree.vdot(a, b), AXES)


def _scale(factor, x):
  """In the dtypes of `x`."""
  return jax.tree.map(
    lambda leaf: jnp.asarray(factor).astype(leaf.dtype) * leaf, x
  )
