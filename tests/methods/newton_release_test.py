"""Certified releases of Newton corrections, and what is not released."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from junlearn import tree, view
from junlearn.certify import calibrate, certificate, certified, constants
from junlearn.certify.derived import derive
from junlearn.certify.release import NotReachedError
from junlearn.methods import newton
from junlearn.model import from_function
from junlearn.transform import Request, Result
from tests import problems
from tests.regression import (
  L2,
  as_params,
  bound_of,
  flat,
  optimum,
  ridge,
  squared,
  start,
)

KEY = jax.random.key(0)


def no_entropy(size):
  raise AssertionError(f"{size} bytes of noise were drawn")


def stay(key, params, request):
  del key
  return Result(params, request, {})


def release(problem, *, stage=None, fallback=None, of_bound=None, **options):
  """`options` are of the stage, but for those that `certified` reads too."""
  entropy = {"entropy": options.pop("entropy")} if "entropy" in options else {}
  settings = {"l2": L2, "max_distance": 1e-3, **options}
  return certified(
    stage or newton.transform(problem.model, **settings),
    bound_of(problem, **(of_bound or {})),
    epsilon=1.0,
    delta=1e-5,
    max_distance=settings["max_distance"],
    fallback=fallback,
    **entropy,
  )


def assert_near(result, retrained):
  """Within the noise and the distance of exact retraining, and not it."""
  terms = result.info["release"]
  apart = np.abs(flat(result.params) - retrained)
  assert 0 < apart.max() < 6 * terms.sigma + terms.max_distance


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_certified_release(kind):
  problem = problems.logistic()
  params, request = jax.tree.map(kind, (start(problem), problem.request))
  result = release(problem)(KEY, params, request)
  terms = result.info["release"]
  assert terms.measured.result <= terms.max_distance == 1e-3
  sigma = calibrate.gaussian_sigma(1.0, 1e-5, 1e-3 + terms.rounding)
  assert terms.sigma == sigma and terms.rounding < 1e-8
  assert result.info["stage"].converged
  assert_near(result, optimum(problem.request.retain))
  assert set(terms.checked) == {
    "weights", "disjoint", "linear", "loss", "labels",
  }  # fmt: skip


@pytest.mark.usefixtures("x64")
def test_nothing_is_released_beyond_the_distance():
  problem = problems.logistic()
  short = release(problem, max_distance=1e-14, num_steps=1, entropy=no_entropy)
  with pytest.raises(NotReachedError, match="above max_distance, 1e-14"):
    short(KEY, start(problem), problem.request)


@pytest.mark.usefixtures("x64")
def test_retraining_as_a_fallback():
  problem = problems.logistic()
  params, request = start(problem), problem.request
  retrain = newton.transform(problem.model, l2=L2, max_distance=1e-4)
  result = release(problem, stage=stay, fallback=retrain)(KEY, params, request)
  terms = result.info["release"]
  assert terms.fallback and terms.measured.result <= 1e-4
  assert_near(result, optimum(request.retain))
  for other in (stay, newton.transform(problem.model, l2=L2, num_steps=1)):
    transform = release(problem, stage=stay, fallback=other, entropy=no_entropy)
    with pytest.raises(NotReachedError, match=r"above max_distance, 0\.001"):
      transform(KEY, params, request)


@pytest.mark.usefixtures("x64")
def test_a_theorem_gives_the_distance_and_a_certificate_says_so():
  """From public constants to what verifies: nothing is measured for sigma."""
  problem = problems.logistic()
  inputs = np.asarray(problem.examples["input"])
  radius = np.sqrt(1 + np.max(np.sum(inputs**2, 1)))  # 1 is the bias's
  known = constants.softmax(input_norm=radius, l2=L2, num_classes=3)
  limit = derive(
    "a_priori",
    num_removed=tree.size(problem.request.forget),
    num_examples=tree.size(problem.examples),
    l2=L2,
    optimum_gradient=known.optimum_gradient,
    hessian_lipschitz=known.hessian_lipschitz,
    training_residual=1e-9,
    solve_error=1e-9,
  )
  trained = as_params(optimum(problem.examples), problem.init())
  one_step = newton.transform(
    problem.model, l2=L2, num_steps=1, tolerance=1e-12
  )
  transform = certified(
    one_step,
    bound_of(problem),
    epsilon=1.0,
    delta=1e-5,
    max_distance=limit,
    entropy=np.random.default_rng(0).bytes,
  )
  result = transform(KEY, trained, problem.request)
  terms = result.info["release"]
  assert terms.limit == limit and terms.max_distance == limit.result
  corrected = one_step(KEY, trained, problem.request).params
  apart = np.linalg.norm(flat(corrected) - optimum(problem.request.retain))
  assert 0 < apart <= terms.measured.result <= limit.result

  given = {
    "before": trained, "released": result.params, "salt": bytes(32),
    "config": b"{}", "seeds": {},
  }  # fmt: skip
  bound, request = bound_of(problem), problem.request
  issued = certificate.issue(
    terms, bound, request, experiment="test", name="first", **given
  )
  assert certificate.from_json(certificate.to_json(issued)) == issued

  def verify(corrected, **changes):
    return list(
      certificate.verify(
        issued, bound, request, corrected=corrected, **{**given, **changes}
      )
    )

  assert not verify(corrected)
  moved = jax.tree.map(lambda leaf: leaf + 1e-6, result.params)
  first, *more = verify(corrected, released=moved)
  assert first.startswith("hashes.params_after is ")
  assert any("no exact multiples of the grid" in each for each in more)
  other = jax.tree.map(lambda leaf: leaf * 1.0001, corrected)
  assert any(each.startswith("measured.arg") for each in verify(other))


@pytest.mark.usefixtures("x64")
def test_string_ids():
  problem = problems.logistic()

  def named(examples):
    examples = jax.tree.map(np.asarray, examples)
    return {
      **examples,
      "id": np.char.add("record ", examples["id"].astype(str)),
    }

  request = Request(*map(named, problem.request[:2]))
  result = release(problem)(KEY, start(problem), request)
  assert_near(result, optimum(problem.request.retain))


@pytest.mark.usefixtures("x64")
def test_a_loss_that_is_said_to_be_convex():
  problem = problems.logistic()
  request, params = problem.request, start(problem)
  said = {"output_loss": squared, "convex": "It is a squared norm."}
  result = release(problem, output_loss=squared, of_bound=said)(
    KEY, params, request
  )
  terms = result.info["release"]
  assert terms.checked["loss"].endswith("It is a squared norm.")
  assert_near(result, ridge(request.retain))
  measured = bound_of(problem, **said).measured
  found = np.linalg.norm(flat(params) - ridge(request.retain))
  assert found <= measured(params, request).result < 1e3 * found
  unsaid = {"output_loss": squared}
  with pytest.raises(ValueError, match="'squared', and convex is empty"):
    release(problem, of_bound=unsaid, entropy=no_entropy)(KEY, params, request)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "loss",
  [
    lambda outputs, examples: jnp.sum(jnp.sin(outputs), 1),
    lambda outputs, examples: -jax.nn.logsumexp(outputs, 1),
  ],
)
def test_a_loss_that_is_not_convex_whatever_is_said(loss):
  problem = problems.logistic()
  said = {"output_loss": loss, "convex": "It is."}
  transform = release(problem, of_bound=said, entropy=no_entropy)
  with pytest.raises(ValueError, match="which is not convex in the outputs"):
    transform(KEY, start(problem), problem.request)


def tanh_net():
  """A head on a body that is not linear, and params of both."""
  problem = problems.logistic()

  def apply(params, inputs):
    hidden = jnp.tanh(inputs @ params["body"])
    return hidden @ params["kernel"] + params["bias"]

  rng = np.random.default_rng(4)
  body = jnp.asarray(rng.normal(size=(4, 4)))
  return problem._replace(model=from_function(apply)), {
    **start(problem),
    "body": body,
  }


@pytest.mark.usefixtures("x64")
def test_a_net_is_not_released():
  problem, params = tanh_net()
  transform = release(problem, damping=1.0, entropy=no_entropy)
  with pytest.raises(ValueError, match=r"not linear .*'tanh'"):
    transform(KEY, params, problem.request)


@pytest.mark.usefixtures("x64")
def test_the_head_of_a_net_is():
  problem, params = tanh_net()
  head = view.only("kernel|bias")
  transform = release(problem, view=head, of_bound={"view": head})
  result = transform(KEY, params, problem.request)
  assert result.info["release"].noise_dimensions == 15
  assert tree.digest(result.params["body"]) == tree.digest(params["body"])

  def hidden(examples):
    inputs = np.tanh(np.asarray(examples["input"]) @ np.asarray(params["body"]))
    return {**examples, "input": inputs}

  free, _ = head.split(result.params)
  assert_near(
    result._replace(params=free), optimum(hidden(problem.request.retain))
  )
  whole = release(problem, of_bound={"view": head}, entropy=no_entropy)
  with pytest.raises(ValueError, match="changed a leaf that is not free"):
    whole(KEY, params, problem.request)


def record(**changes):
  """Changes leaves of what is retained, by functions of them and of n."""

  def apply(request):
    retain, n = dict(request.retain), tree.size(request.retain)
    for name, change in changes.items():
      retain[name] = change(retain.get(name), n)
    return request._replace(retain=retain)

  return apply


def at(index, value):
  def change(leaf, n):
    leaf = np.array(np.ones(n) if leaf is None else leaf)
    leaf[index] = value
    return leaf

  return change


BROKEN = {
  "a negative weight": (record(weight=at(3, -1)), "has the weight -1"),
  "half a record": (record(weight=at(3, 0.5)), "has the weight 0.5"),
  "a column of weights": (
    record(weight=lambda _, n: np.ones((n, 1))),
    r"weights of shape \(48, 1\)",
  ),
  "too few weights": (
    record(weight=lambda _, n: np.ones(n - 1)),
    r"weights of shape \(47,\)",
  ),
  "no records": (record(weight=lambda _, n: np.zeros(n)), "has no record"),
  "label -1": (record(label=at(0, -1)), "has the label -1"),
  "label K": (record(label=at(0, 3)), "has the label 3"),
  "float labels": (record(label=lambda y, n: np.ones(n)), "labels of dtype fl"),
  "a column of labels": (
    record(label=lambda y, n: np.ones((n, 1), int)),
    "labels of dtype int64",
  ),
  "not forgotten": (
    lambda request: request._replace(retain=request.forget),
    "request.retain has 12 of the records to forget",
  ),
  "no ids": (
    lambda request: request._replace(
      retain={k: v for k, v in request.retain.items() if k != "id"}
    ),
    "request.retain has no ids",
  ),
  "no forget": (
    lambda request: request._replace(forget=None),
    "request.forget has no ids",
  ),
  "nothing to forget": (
    lambda request: request._replace(forget=tree.take(request.forget, [])),
    "request.forget has no record",
  ),
  "no retain": (
    lambda request: request._replace(retain=None),
    "no retain examples",
  ),
  "NaN": (record(input=at((2, 1), np.nan)), "cannot be measured"),
  "infinity": (record(input=at((2, 1), np.inf)), "cannot be measured"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_requests_are_not_released(name, kind):
  problem = problems.logistic()
  change, message = BROKEN[name]
  request = change(jax.tree.map(np.asarray, problem.request))
  request = jax.tree.map(kind, request)
  transform = release(problem, stage=stay, fallback=stay, entropy=no_entropy)
  error = NotReachedError if "measured" in message else ValueError
  with pytest.raises(error, match=message) as raised:
    transform(KEY, start(problem), request)
  assert "\n" not in str(raised.value)


def test_certified_release_refuses_single_precision():
  problem = problems.logistic()
  with pytest.raises(ValueError, match="float32"):
    release(problem)(KEY, problem.init(), problem.request)
