"""A study of one number, whose phases are counted."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.run.session import Outcome
from experiments.run.study import Case, Evidence, Study
from junlearn import report
from junlearn.descent import State
from junlearn.transform import Result

STEPS = {"original": 5, "retrain": 4, "halve": 3, "shared": 2}


class Task(NamedTuple):
  """A number to be moved away from."""

  name: str
  number: float


class Toy(Study[Task]):
  """Halves one number in so many steps.

  Attributes:
    audited: what `audit` was called with, in order.
  """

  METRICS = (report.Metric("value", "Value", help="The number."),)
  NOT_PROVEN = ("It proves nothing.",)

  def __init__(self, requests=("",)):
    self._requests = requests
    self.audited = []

  @property
  def title(self):
    return "Toy"

  def tasks(self, seed):
    return [Task(name, 10.0 + seed) for name in self._requests]

  def steps(self, name, task):
    return STEPS[name]

  def begin(self, tasks):
    self._phase("shared", "shared", 1.0)

  def train(self, task, seed):
    if task is None:
      return self._phase("original", f"seed{seed}/original", 10.0 + seed)
    return self._phase("retrain", f"seed{seed}/{task.name}retrain", 1.0)

  def unlearn(self, method, case: Case[Task]) -> Outcome:
    name = f"seed{case.seed}/{case.task.name}{method}"
    return self._phase(method, name, float(case.original.params["w"]))

  def audit(self, method, outcome, case):
    self.audited.append((case.seed, case.task.name, method))
    value = float(outcome.params["w"])
    if case.target is None:
      assert method == "retrain"
    return Evidence({"value": value}, {"values": np.array([value])})

  def deletion(self, tasks):
    return report.Deletion(range(3), 9, "By hand.")

  def figures(self, findings):
    assert findings.methods[:2] == ["original", "retrain"]
    return [None]

  def _phase(self, kind, name, start):
    steps = STEPS[kind]
    start = {"w": np.float32(start)}

    def step(state, x, data):
      del x, data
      params = {"w": state.params["w"] / 2}
      return State(params, state.optimizer), {"loss": params["w"]}

    def transform():
      state = State({"w": jnp.asarray(start["w"])}, jnp.int32(0))
      state, infos = self.session.loop(step, state, jnp.zeros(steps), None)
      return Result(state.params, None, infos)

    return self.session.phase(name, transform, start=start, steps=steps)
