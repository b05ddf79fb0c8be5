"""A net on a table of patients, trained and made to forget some of them."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
from sklearn import datasets

from experiments.run import figures, findings, program, study
from experiments.tabular import metrics
from experiments.tabular.methods import METHODS, TRAINING
from experiments.tabular.recipe import Recipe
from junlearn import nn, report
from junlearn.data import from_arrays, select
from junlearn.model import from_linen
from junlearn.transform import Request


class Task(NamedTuple):
  """What is asked of one seed; a seed with several requests names them."""

  request: Request
  name: str = ""


class Study(study.Study[Task]):
  """The breast cancer table of scikit-learn, a quarter of it to test on."""

  METRICS, NOT_PROVEN = metrics.METRICS, metrics.NOT_PROVEN
  title = "Forgetting records of a table"

  def __init__(self, recipe: Recipe):
    self.recipe = recipe
    x, y = datasets.load_breast_cancer(return_X_y=True)
    # A tenth of the labels are wrong, so that there is something to memorize.
    wrong = np.random.default_rng(0).uniform(size=len(y)) < 0.1
    table = from_arrays((x - x.mean(0)) / x.std(0), np.where(wrong, 1 - y, y))
    self.test, self.records, _ = select.by_fraction(table, 0.25, seed=0)
    self.model = from_linen(nn.MLP(2, hidden=(64, 64)))
    self.fresh = self.model.init(jax.random.key(0), table["input"][:1])

  def tasks(self, seed):
    """A random fraction of the training records."""
    fraction = self.recipe.forget_fraction
    with program.naming("forget_fraction"):
      return [Task(select.by_fraction(self.records, fraction, seed=seed))]

  def steps(self, name, task):
    """Of training or of a method; no model is shared by all tasks."""
    training = 0 if name == "shared" else self.recipe.training_steps
    return self.recipe.unlearn_steps if name in METHODS else training

  def train(self, task, seed):
    """From scratch, on everything or on what a task retains."""
    everything = Task(Request(None, self.records))
    name = "retrain" if task else "original"
    return self._run(name, seed, self.fresh, task or everything)

  def unlearn(self, method, case):
    """From the original model."""
    return self._run(method, case.seed, case.original.params, case.task)

  def _run(self, name, seed, params, task):
    key, transform = jax.random.key(seed), self._transform(name)
    return self.session.phase(
      findings.place(seed, task.name, name),
      lambda: transform(key, params, task.request),
      start=params,
      steps=self.steps(name, task),
    )

  @functools.cache  # noqa: B019  made once: all seeds share its program
  def _transform(self, name):
    steps, loop = self.steps(name, None), self.session.loop
    make, rate = METHODS.get(name, TRAINING)
    options = {"num_steps": steps, "batch_size": 32, "loop": loop}
    return make(self.model, optax.adam(rate), **options)

  def audit(self, method, outcome, case):
    """Accuracies and an attack."""
    parts = {"forget": case.task.request.forget, "test": self.test}
    return metrics.measure(self.model, outcome.params, parts, seed=case.seed)

  def deletion(self, tasks):
    """The request as the page tells it."""
    ids = tasks[0].request.forget["id"].tolist()
    return report.Deletion(ids, len(self.records["id"]), "Of the first seed.")

  def figures(self, findings):
    """The attack, all seeds together."""
    return [figures.attack(findings, "forget", "test", title="Attack by loss")]
