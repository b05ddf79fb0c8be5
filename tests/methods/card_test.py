"""Cards say what methods do: every module has one, and it is held to it."""

import inspect
import pkgutil
import re
import typing

import jax
import optax
import pytest

from junlearn import methods, tree
from junlearn.methods import card, decentralized_newton, lune, npo, simnpo
from tests import problems, rows
from tests.clients import ring

CARDS = methods.cards()
PARTS = typing.get_args(card.Part)

# Methods whose row is not of their defaults: NPO's have no retain term, LUNE's
# makes its own negatives.
DEFAULTS = {"lune": lune, "npo": npo, "simnpo": simnpo}


def test_every_module_has_a_card():
  modules = {module.name for module in pkgutil.iter_modules(methods.__path__)}
  assert set(CARDS) == modules - {"card"}


@pytest.mark.parametrize("name", CARDS)
def test_papers_are_those_of_the_docstring(name):
  said = " ".join(inspect.getdoc(getattr(methods, name)).split())
  for paper in filter(None, CARDS[name].paper.split("; ")):
    authors, when, *number = re.split(
      r", (?=NeurIPS|ICML|CVPR|\d{4}|arXiv)", paper
    )
    assert authors.split(" et al.")[0] in said
    year = int(re.search(r"(19|20)\d\d$", when)[0])
    assert when in said or when.isdecimal()
    for arxiv in number:
      assert arxiv.removeprefix("arXiv ") in said
      assert 0 <= year - (2000 + int(arxiv[6:8])) <= 1


@pytest.mark.parametrize("name", CARDS)
def test_words_are_those_allowed(name):
  found = CARDS[name]
  assert found.modality in typing.get_args(card.Modality)
  assert set(found.reads) <= set(PARTS)
  assert found.cost
  assert found.guarantee


def test_certified_methods_have_a_bound():
  sound = {
    name for name, found in CARDS.items() if "certified" in found.guarantee
  }
  assert sound == {"newton", "decentralized_newton"}


def small(name):
  """A method on its small problem: `(transform, params, request)`."""
  if name == "decentralized_newton":
    case = ring.setting(**next(iter(ring.CASES.values())))
    transform = decentralized_newton.transform(
      ring.MODEL, case.training, num_steps=1
    )
    return transform, case.params, case.request
  optimizer, few = optax.sgd(0.1), {"num_steps": 2, "batch_size": 8}
  problem = rows.problem_of(name)
  if name in DEFAULTS:
    problem = problems.sentences()
    transform = DEFAULTS[name].transform(problem.model, optimizer, **few)
  elif name in rows.CORRECTIONS:
    transform = rows.CORRECTIONS[name](problem)
  else:
    transform = rows.DESCENTS[name](problem, optimizer, **few)
  return transform, problem.init(), problem.request


@pytest.mark.parametrize("name", CARDS)
def test_reads_and_needs_what_it_says(name):
  transform, params, request = small(name)
  if "extra" in CARDS[name].reads:
    request = request._replace(extra=request.forget["alternative"])

  def digest(request):
    return tree.digest(transform(jax.random.key(0), params, request).params)

  everything = digest(request)
  for part in PARTS:
    try:
      decides = digest(request._replace(**{part: None})) != everything
      refuses = False
    except (ValueError, TypeError):
      decides = refuses = True
    assert decides == (part in CARDS[name].reads), part
    if part == "retain":
      assert refuses == CARDS[name].needs_retain
