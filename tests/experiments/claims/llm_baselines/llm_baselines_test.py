"""Claims of the LLM baselines: what is compared, measured and left behind."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.claims.llm_baselines import bench, limit, sanity
from experiments.language import tasks
from experiments.run.claim import Claim
from junlearn import language
from junlearn.audit.text import memory
from junlearn.methods import npo
from junlearn.nn.text import transformer
from tests.experiments.driver import ROOT


def passed(parts):
  return {
    number: Claim("", number, "", *demanded, float(measured)).passed
    for number, *demanded, measured in parts
  }


def test_metrics_have_the_values_worked_out_by_hand(monkeypatch):
  assert passed(sanity.claims()) == dict.fromkeys(("6a", "6b", "6c"), True)
  exact = memory.exact_memorization
  monkeypatch.setattr(memory, "exact_memorization", lambda s: exact(s) + 1e-6)
  assert not passed(sanity.claims())["6a"]


def test_a_request_names_one_question_of_each_fact():
  corpus = bench.corpus(20)
  facts = tasks.by_fraction(corpus, 0.1, 0)
  task = tasks.make(corpus, "fraction", facts, 0)
  assert len(corpus.trained) == 20 * 5 * 4
  assert len(task.records) == len(facts) == 2 * 5
  assert len(task.parts["heldout"]) == 3 * len(facts)
  assert {qa.fact for qa in task.parts["heldout"]} == facts
  assert len(task.parts["forget/wrong"]) == 5 * len(facts)


def test_a_question_does_not_tell_which_sentence_answers_it():
  corpus = bench.corpus(20)
  begins = {}
  for qa in (*corpus.trained, *corpus.unseen):
    answers = [qa.answer, qa.paraphrased_answer]
    assert all(qa.value in words for words in answers)
    assert [words.startswith("The") for words in answers].count(True) == 1
    for wrong in qa.perturbed_answers:
      assert qa.value not in wrong
      assert wrong.startswith("The") == answers[1].startswith("The")
    begins.setdefault(qa.id % 8, []).append(answers[0].startswith("The"))
  assert len(begins) == 4
  for group in begins.values():
    assert 0.35 < np.mean(group) < 0.65  # of 110: 3 deviations


def test_npo_beside_ascent_is_its_weight_where_one_answer_is_forgotten():
  corpus = bench.corpus(10)
  config = transformer.Config(
    vocab_size=corpus.tokenizer.vocab_size,
    hidden_size=8,
    intermediate_size=8,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
  )
  model = transformer.model(config)
  examples = corpus.encode(corpus.trained[:1])
  params = model.init(jax.random.key(0), examples["input"])
  loss = npo.sequence_loss(model)
  margin = 3.0
  nll = language.losses(loss, params, examples)
  found = limit.beside_ascent(
    loss, params, {**examples, "reference": nll - jnp.float32(margin)}
  )
  for beta, point in found.items():
    # p / p_ref = exp(-margin)
    weight = 2 * np.exp(-beta * margin) / (np.exp(-beta * margin) + 1)
    np.testing.assert_allclose(point.ratio, weight, rtol=1e-4)
    np.testing.assert_allclose(point.cosine, 1, rtol=1e-5)
    bound = 2 / beta * np.log1p(np.exp(-beta * margin))
    np.testing.assert_allclose(point.loss, bound, rtol=1e-4)


SMALL = (
  "--seeds=2",
  "--llm_authors=10",
  "--llm_training_steps=20",
  "--llm_unlearn_steps=2",
  "--llm_methods=lune",
)


@pytest.mark.slow
def test_a_run_leaves_its_page_and_starts_again(tmp_path):
  def run():
    done = subprocess.run(
      [
        *(sys.executable, "-m", "experiments.claims", "llm_baselines", *SMALL),
        f"--workdir={tmp_path / 'run'}",
        f"--cache_dir={tmp_path / 'cache'}",
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    # Models that know nothing do not fulfil the claims.
    assert done.returncode == 1, done.stderr
    return (tmp_path / "run/claims.md").read_text(), done.stderr

  page, err = run()
  assert "Warning" not in err and "Traceback" not in err
  claims = json.loads((tmp_path / "run/claims.json").read_text())
  held = {claim["number"]: claim["passed"] for claim in claims}
  assert {number[0] for number in held} == set("123456")
  for sure in ("3a", "3b", "3e", "6a", "6b", "6c"):
    assert held[sure], sure
  for method in ("ascent", "grad_difference", "npo", "lune"):
    assert f"\n| {method} |" in page
  assert run()[0] == page
