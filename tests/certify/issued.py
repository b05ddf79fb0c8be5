"""Certificates of every kind, of releases of a bound made by hand."""

import json

import numpy as np

from junlearn.certify import certificate
from junlearn.certify.derived import derive, head_of
from junlearn.certify.release import Bound, describe
from junlearn.transform import Request

HEAD = head_of("softmax", input_norm=1.5, l2=0.1, num_classes=10)
SALT = bytes(32)
HEX = f"{7:064x}"
PARAMS = {"w": np.ones((5, 130))}
REQUEST = Request(
  {"input": np.zeros((2, 1)), "id": np.array([1, 2])},
  {"input": np.zeros((3, 1)), "id": np.array(["a", "b", "c"])},
)


def bound_of(theorem="residual", constants=None, measured=None, **changes):
  """Made by hand; measures what it is told."""
  found = measured or {"gradient_norm": 3e-5, "gradient_error": 1e-11}
  bound = Bound(
    theorem=theorem,
    constants=constants or {"l2": 0.1},
    measure=lambda params, request: found,
    norm="joint",
    retrain_error=1e-6,
    checks={"weights": lambda params, request: "Every record counts once."},
    stated={"features": "Points of a sphere."},
    head=HEAD,
  )
  return bound._replace(**changes)


def issue(bound=None, max_distance=1e-3, fallback=False, **changes):
  """A certificate; changes are of the release or of the arguments."""
  bound = bound or bound_of()
  settings = {"epsilon": 1.0, "delta": 1e-5, "max_distance": max_distance}
  release = describe(bound, PARAMS, REQUEST, fallback=fallback, **settings)
  options = {
    "experiment": "test",
    "name": "first",
    "before": {"w": np.zeros((5, 130))},
    "released": {"w": np.full((5, 130), 0.5)},
    "salt": SALT,
    "config": b"{}",
    "seeds": {"data": HEX},
  }
  of_release = {k: v for k, v in changes.items() if hasattr(release, k)}
  options |= {k: v for k, v in changes.items() if k not in of_release}
  return certificate.issue(
    release._replace(**of_release), bound, REQUEST, **options
  )


def a_priori(**changes):
  values = HEAD.values
  options = {
    "num_removed": 1,
    "num_examples": 5000,
    "l2": 0.1,
    "optimum_gradient": values.optimum_gradient,
    "hessian_lipschitz": values.hessian_lipschitz,
    "training_residual": 1e-9,
  }
  return derive("a_priori", **{**options, **changes})


def decentralised():
  contraction = derive(
    "local_contraction",
    step_size=0.5,
    l2=0.1,
    smoothness=HEAD.values.smoothness,
    num_local_steps=3,
  )
  return bound_of(
    "fixed_point_residual",
    {"contraction": contraction},
    {"residual_norm": 1e-6, "residual_error": 1e-13},
    norm="row",
  )


def by_limit():
  small = bound_of(measured={"gradient_norm": 1e-9, "gradient_error": 1e-14})
  return issue(small, a_priori())


KINDS = {
  "chosen": issue,
  "a priori": by_limit,
  "decentralised": lambda: issue(decentralised()),
  "retrained": lambda: issue(fallback=True),
}


def leaves(data, path=()):
  pairs = data.items() if isinstance(data, dict) else enumerate(data)
  for key, value in pairs:
    if isinstance(value, dict | list):
      yield from leaves(value, (*path, key))
    else:
      yield (*path, key), value


def changed(issued, path, value):
  """The certificate with another value at a path, read strictly."""
  place = edited = json.loads(certificate.to_json(issued))
  for key in path[:-1]:
    place = place[key]
  place[path[-1]] = value
  return certificate.from_json(json.dumps(edited, indent=2) + "\n")
