"""How far clients' models are from retraining, whatever corrected them.

What retraining leads to without the forgotten examples is either the fixed
point X' of the rounds of training (form "stacked": all clients' params as one
vector) or the minimizer x' of the mean risk (form "consensus": the same params
at every client).
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from junlearn import validate
from junlearn.certify import bounds, premises
from junlearn.certify.derived import Derived, Head, derive
from junlearn.certify.release import Bound
from junlearn.certify.rounding import gradient_error
from junlearn.clients import rounds, topology
from junlearn.clients.gossip import average, number
from junlearn.clients.training import Training
from junlearn.loss import Loss, OutputLoss, of_outputs, softmax_cross_entropy
from junlearn.model import Model
from junlearn.parallel.across import AXES, Backend, across
from junlearn.typing import Examples, Params, Vector
from junlearn.view import full

Form = Literal["stacked", "consensus"]

_BATCH = 64  # examples at a time
_LOST = 1e-6  # of the strong convexity, at most
# Of rounding, where constants of the records are compared with those stated;
# the contraction reckons with it.
_SLACK = 1e-9


def bound(
  model: Model,
  training: Training,
  *,
  form: Form = "stacked",
  features: str,
  tolerance: float = 0.0,
  head: Head | None = None,
  output_loss: OutputLoss = softmax_cross_entropy,
  convex: str = "",
  backend: Backend = "vmap",
) -> Bound:
  """The bound of the clients' params, for `certify.certified`.

      stacked:    |X - X'|_F <= |X - T^-(X)|_F / (gamma l2)        (tau = 1)
                  |X - X'|_F <= |X - T^-(X)|_F / (1 - kappa)       (tau > 1)
      consensus:  |x - x'|   <= |mean_i grad F_i^-(x)| / l2

  each with an allowance for rounding. The stacked form bounds all clients'
  params jointly, the consensus those of any one of them.

  Args:
    model: of one client, in evaluation mode; affine in its params.
    training: how the clients trained, and would retrain.
    form: see above.
    features: as in `newton.bound`.
    tolerance: `|X - T(X)|_F` at which retraining ends, at least 0; it gives
      the `retrain_error`. That of a consensus is as near to its minimizer.
    head: the constants of every client's risk (`derived.head_of`); several
      local steps need them.
    output_loss: `(outputs, examples) -> [n]`.
    convex: as in `newton.bound`.
    backend: how the clients are run, see `across`; not "map".

  Returns:
    A `Bound` that checks the model, the loss, the records, the request and,
    with several local steps, the constants.

  **Guarantees**: X' is the fixed point of the rounds without the forgotten
  examples, x' the minimizer of the mean risk; for any params, however they came
  about (`certify`, lemmas 4 to 6 and 9). Assumes what the `Bound` checks, and
  what it states.

  Raises:
    ValueError: if an argument is out of range, or the mixing matrix is not
      symmetric and doubly stochastic.
  """
  validate.one_of(get_args(Form), form=form)
  validate.at_least(0, tolerance=tolerance)
  training = training._replace(mixing=_frozen(training))
  contraction = (
    _contraction(training, head) if training.local_steps > 1 else None
  )
  checks = premises.of_classifier(
    model, output_loss, convex=convex, view=full(), axes=2
  )
  checks["mixing"] = lambda params, request: (
    "The mixing matrix is symmetric and doubly stochastic."
  )
  constants: dict[str, float | Derived]
  if form == "stacked" and contraction is not None:
    checks["smoothness"] = _check_smoothness(model, training, head, output_loss)
    theorem, constants = "fixed_point_residual", {"contraction": contraction}
    name = "residual"
    reach = bounds.fixed_point_residual(1.0, contraction=contraction.result)
  else:
    theorem, constants, name = "residual", {"l2": training.l2}, "gradient"
    reach = bounds.residual(1.0, l2=training.l2)
  run = for_all(_measure(model, training, form, output_loss, reach), backend)

  def measure(params, request):
    norm, error = run(params, premises.retained(request))
    return {f"{name}_norm": norm[0], f"{name}_error": error[0]}

  return Bound(
    theorem=theorem,
    constants=constants,
    measure=measure,
    norm="row" if form == "consensus" else "joint",
    retrain_error=_retrain_error(training, contraction, tolerance),
    checks=checks,
    stated={
      "features": premises.statement(features=features),
      "retraining": _RETRAINING[form].format(tolerance),
      **premises.STATED,
    },
    axes=2,
    head=head,
  )


_RETRAINING = {
  "stacked": "Retraining is the same rounds of training without the records, "
  "from any start, until a round moves the clients by at most {:.6g}, then the "
  "same noise.",
  "consensus": "Retraining is the minimizer of the clients' mean risk without "
  "the records, as near to it as rounds that move the clients by {:.6g} are to "
  "their own end, then the same noise.",
}


def _measure(model, training, form, output_loss, reach):
  """The norm that a theorem reads and its rounding error, at one client.

  Retraining is at most `reach` times the norm away.
  """
  loss = of_outputs(model, output_loss)
  round_, mean_slope = training.round(loss), mean_gradient(training, loss)
  steps, gamma = training.local_steps, training.step_size
  mixing = _deviation(training.mixing) + len(training.mixing) * 2.0**-52

  def norm(params, retain):
    if form == "consensus":
      first = average(params, jax.lax.axis_index(AXES) == 0)
      return optax.tree.norm(mean_slope(first, retain))
    moved = _joint_norm(optax.tree.sub(params, round_(params, retain)))
    return moved / gamma if steps == 1 else moved

  def error(params, retain, found):
    """Of the gradients, and of the products with the mixing matrix.

    What its rows sum to beyond 1 moves X', what retraining leads to, by as
    much, and `|X'| <= |X| + reach * found`.
    """
    scale = jnp.asarray(rounds.scale(training.weighting)(retain), float)
    of_risk = gradient_error(
      model, output_loss, params, retain, l2=training.l2
    ) * jnp.maximum(scale, 1)
    furthest = _joint_norm(params) + reach * found
    total = _joint_norm(of_risk) + mixing * furthest / gamma
    if form == "consensus" or steps == 1:
      return total
    return steps * gamma * total  # of what a round moves

  def both(params, retain):
    found = norm(params, retain)
    return found, error(params, retain, found)

  return both


def _frozen(training):
  """The mixing matrix, checked, as nobody can change it any more."""
  validate.positive(step_size=training.step_size, l2=training.l2)
  mixing = np.array(training.mixing, np.float64)
  topology.check_mixing(mixing, removed=topology.removed(mixing))
  # What the rows sum to beyond 1 is taken from the strong convexity.
  lost, l2 = _deviation(mixing) / training.step_size, training.l2
  if not lost <= _LOST * l2:
    raise ValueError(
      f"mixing is off by {_deviation(mixing):.3g} from symmetric rows that sum "
      f"to 1; with step_size {training.step_size:g} and l2 {l2:g} it must be "
      f"at most {_LOST * l2 * training.step_size:.3g}."
    )
  mixing.flags.writeable = False
  return mixing


def _deviation(mixing):
  """How far it is from symmetric and from rows that sum to 1."""
  mixing = np.asarray(mixing, np.float64)
  asymmetry = np.abs(mixing - mixing.T).sum(1).max()
  return float(np.abs(mixing.sum(1) - 1).max() + asymmetry)


def _joint_norm(x):
  """Over all clients."""
  return jnp.sqrt(jax.lax.psum(optax.tree.norm(x, squared=True), AXES))


def consensus(training: Training) -> Callable[[Params], Params]:
  """The mean over the clients that have not left, for the body of `across`."""
  gone = topology.removed(training.mixing)
  present = ~np.isin(np.arange(len(training.mixing)), gone)
  return lambda values: average(values, jnp.asarray(present)[number(present)])


def mean_gradient(
  training: Training, loss: Loss
) -> Callable[[Params, Examples], Vector]:
  """`(x, retain) -> mean_i grad F_i(x)`, for the body of `across`."""
  risk, mean = training.risk(loss), consensus(training)
  return lambda x, retain: mean(jax.grad(risk)(x, retain))


def for_all(body: Callable[..., Any], backend: Backend) -> Callable[..., Any]:
  """The body of one client for all of them, compiled once."""
  # pmap compiles by itself; in jit, clients of several processes cannot
  # communicate.
  mapped = across(body, backend=backend, collective=True)
  return mapped if backend == "pmap" else jax.jit(mapped)


def _contraction(training: Training, head: Head | None) -> Derived:
  if head is None:
    raise ValueError(
      f"head is None; {training.local_steps} local steps need the constants of "
      "the clients' risks."
    )
  return derive(
    "local_contraction",
    step_size=training.step_size,
    l2=training.l2,
    smoothness=head.values.smoothness * (1 + _SLACK),
    num_local_steps=training.local_steps,
  )


def _retrain_error(training, contraction, tolerance) -> float:
  if contraction is None:
    error = bounds.residual(tolerance / training.step_size, l2=training.l2)
  else:
    error = bounds.fixed_point_residual(
      tolerance, contraction=contraction.result
    )
  return float(error)


def _check_smoothness(model, training, head, output_loss):
  """Whether the constants hold for the retained records.

  The Hessian of softmax cross-entropy in direction v is the variance of the
  scores `J v`, at most a quarter of their squared range, so that

      beta <= s max_z max_{k, l} |J_z^T (e_k - e_l)|^2 / 4 + l2.
  """
  if output_loss is not softmax_cross_entropy:
    raise ValueError(
      f"output_loss is {getattr(output_loss, '__name__', output_loss)!r}; with "
      f"{training.local_steps} local steps it must be softmax_cross_entropy."
    )

  @jax.jit
  @jax.vmap
  def largest(params, examples):
    def one(inputs):
      outputs, pull = jax.vjp(lambda p: model.apply(p, inputs[None])[0], params)
      rows = jax.vmap(lambda e: pull(e[None])[0])(
        jnp.eye(outputs.shape[-1], dtype=outputs.dtype)
      )
      gram = sum(
        jnp.einsum("k...,l...->kl", leaf, leaf)
        for leaf in jax.tree.leaves(rows)
      )
      norms = jnp.diag(gram)
      return jnp.max(norms[:, None] + norms - 2 * gram)

    ranges = jax.lax.map(one, examples["input"], batch_size=_BATCH)
    return jnp.max(ranges * examples["weight"].astype(ranges.dtype))

  def check(params, request):
    retain = premises.retained(request)
    counts = np.asarray(retain["weight"]).sum(1)
    scales = np.ones(len(counts))
    if training.weighting == "sample":
      scales = (counts > 0).sum() * counts / counts.sum()
    curvature = scales * np.asarray(largest(params, retain)) / 4
    found = float(np.max(curvature)) + training.l2
    stated = head.values.smoothness
    if not found <= stated * (1 + _SLACK):
      raise ValueError(
        f"head has the smoothness {stated:.6g}; the retained records reach "
        f"{found:.6g}, so that it must be at least that."
      )
    return (
      f"No client's risk on the retained records is less smooth than "
      f"{stated:.6g}."
    )

  return check
