"""Claims of LUNE: which rates are chosen, what runs say, what adapters cost."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.claims.lune import claims, tables
from experiments.claims.lune.runs import Bench, Point
from experiments.language import corpora, transforms
from experiments.language.recipe import Recipe
from experiments.run.session import Outcome
from junlearn.loop import NonFiniteError
from junlearn.nn.text import transformer

# Steps, then held-out, replaced and retained accuracy, by learning rate.
CURVES = {
  0.1: [[0, 1, 0, 1], [2, 0.1, 0.8, 0.7], [4, 0, 0.9, 0.6], [6, 0, 1, 0.5]],
  0.2: [[0, 1, 0, 1], [2, 0.4, 0.5, 0.8], [4, 0.05, 1, 0.7], [6, 0, 1, 0.4]],
  0.3: [[0, 1, 0, 1], [2, 0.9, 0.0, 1.0], [4, 0.9, 0, 1], [6, 0.9, 0, 1]],
}


class Study:
  """Runs whose curves are known; a rate without one diverges."""

  recipe = SimpleNamespace(unlearn_steps=6)

  def tasks(self, seed):
    del seed
    return [SimpleNamespace(name="author")]

  def train(self, task, seed):
    del task, seed
    return SimpleNamespace(params=None)

  def tracker(self, task, parts):
    del task
    assert parts == ("heldout", "replaced", "retain")

  def apply(self, name, seed, variant, params, task, *, learning_rate, **_):
    del name, seed, variant, params, task
    if learning_rate not in CURVES:
      raise NonFiniteError("diverged")
    return Outcome(None, 3.0, 0.0, 0, CURVES[learning_rate], {}, "")


def test_a_run_is_judged_where_it_has_forgotten():
  bench = Bench(Study(), 2, [0.1])
  first, second = bench.runs("lune", "author")
  assert first == second
  assert first.forgotten == Point(2, 0.1, 0.8, 0.7)
  assert first.late == Point(4, 0, 0.9, 0.6)  # two thirds of the steps
  assert first.last == Point(6, 0, 1, 0.5)


@pytest.mark.parametrize(
  ("rates", "chosen"),
  [
    ([0.1, 0.2, 0.3], 0.2),  # as good as 0.1, and higher
    ([0.3, 0.1], 0.1),  # 0.3 retains more, but does not forget
    ([0.4, 0.1], 0.1),  # 0.4 diverges
    ([0.4, 0.3], 0.4),  # neither forgets
  ],
)
def test_the_highest_of_the_best_rates_is_chosen(rates, chosen):
  (run,) = Bench(Study(), 1, rates).runs("lune", "author")
  assert run.rate == chosen
  assert (run.outcome is None) == (chosen not in CURVES)


def test_a_seed_that_forgets_nothing_leaves_a_gap():
  (forgets,) = Bench(Study(), 1, [0.1]).runs("lune", "author")
  (keeps,) = Bench(Study(), 1, [0.3]).runs("lune", "author")
  assert claims._retained([forgets]) == 0.7
  assert not claims._retained([forgets, keeps]) <= 1  # no value at all
  *_, both, neither, _ = tables.methods(
    {"author": {"lune": [forgets, keeps], "ascent": [keeps]}}
  )
  assert both == (
    "| lune | 2 | 0.2 [0.1, 0.3] | 0.5 [0, 1] | 2 of 1 | 0.1 of 1 | 0.8 of 1 "
    "| 0.7 of 1 | 0.75 [0.5, 1] | 500 |"
  )
  assert neither == "| ascent | 1 | 0.3 | 0 | - | - | - | - | 1 | 500 |"


def test_what_adapters_cost():
  """By hand: r (in + out) of each dense layer, in each of the blocks."""
  corpus = corpora.fictitious(10)
  recipe = Recipe(hidden_size=16, intermediate_size=24, num_layers=2, rank=3)
  adapters = 2 * 3 * (4 * (16 + 16) + 3 * (16 + 24))
  model = transformer.model(transforms.configure(corpus, recipe, None))
  params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
  weights = optax.tree.size(params)
  parameters, memory = claims._fractions(corpus, recipe)
  assert parameters == adapters / weights
  # Adam keeps two moments of each; its step count and rate are of 4 bytes.
  assert memory == pytest.approx(
    (2 * adapters + 3) / (2 * weights + 3), abs=1e-4
  )
