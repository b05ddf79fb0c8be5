"""Forgetting in a language model as a user runs it: what is left, refused."""

import contextlib
import json
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language import (
  attacks,
  corpora,
  evaluation,
  knowledge,
  tasks,
)
from experiments.language.methods import METHODS, VARIANTS, variants
from experiments.language.tasks import Asked
from experiments.run.study import Evidence
from junlearn.audit.text import generation
from junlearn.audit.text.scores import TokenScores
from junlearn.data.text import encoding, tokenizer
from junlearn.nn.text import pretrained, transformer
from tests.experiments.driver import ROOT, Driver, hashes, leftovers, read_rows

SMALL = (
  "--num_authors=6",
  "--seeds=1",
  "--hidden_size=16",
  "--intermediate_size=32",
  "--num_layers=2",
  "--num_heads=2",
  "--rank=2",
  "--steps=30",
  "--unlearn_steps=6",
  "--forget_fraction=0.4",
  "--threshold=0.001",  # so little trained a model must still be moved
)
METHOD = "--method=lune,rmu"


@pytest.fixture(scope="module")
def corpus():
  return corpora.fictitious(6)


@pytest.fixture(scope="module")
def task(corpus):
  facts = tasks.by_fraction(corpus, 0.4, 0)
  return tasks.make(corpus, "fraction", facts, 0, rows=70)


def test_who_is_forgotten_and_who_stays(corpus, task):
  forgotten = {qa.author for qa in task.records}
  assert len(forgotten) == 2
  present = task.request.forget["weight"] > 0
  assert present.sum() == len(task.records) == 2 * 6 * corpus.named
  assert len(present) == 70
  named = set(task.request.forget["id"][present].tolist())
  assert named == {qa.id for qa in task.records}
  stay = task.request.retain["weight"] > 0
  authors = set(task.request.retain["author"][stay].tolist())
  assert authors == {qa.author for qa in corpus.trained} - forgotten
  # Held-out paraphrases are neither named nor retained, and ask for the facts.
  heldout = {qa.id for qa in task.parts["heldout"]}
  assert not heldout & named
  assert not heldout & set(task.request.retain["id"][stay].tolist())
  assert {q.fact for q in task.parts["heldout"]} == {
    q.fact for q in task.records
  }
  assert len(named | heldout) == 2 * 6 * 8
  trained = {qa.author for qa in corpus.trained}
  assert not {qa.author for qa in task.parts["unseen"]} & trained


def test_an_attacker_knows_nothing_of_the_hidden_half(task):
  shown, hidden = ({qa.fact for qa in p} for p in (task.shown, task.hidden))
  assert shown and hidden and not shown & hidden
  assert shown | hidden == {qa.fact for qa in task.records}
  assert len(task.shown) == len(shown)  # one paraphrase of each


def test_other_answers_are_not_the_truth(corpus, task):
  truth = {qa.fact: qa.answer for qa in task.records}
  for qa in task.parts["replaced"]:
    assert qa.answer != truth[qa.fact]
  for kind in ("forget", "retain"):
    right = task.parts[f"{kind}/right"]
    wrong = task.parts[f"{kind}/wrong"]
    each = len(wrong) // len(right)
    assert each == 5
    for i, qa in enumerate(right):
      others = {other.answer for other in wrong[each * i : each * (i + 1)]}
      assert len(others) == each
      assert qa.answer not in others
  for name, examples in task.alternatives.items():
    np.testing.assert_array_equal(
      examples["id"], task.request.forget["id"], err_msg=name
    )


def test_facts_of_one_author_leave_its_other_facts_as_neighbors(corpus):
  first = corpus.trained[0]
  facts = tasks.by_column(corpus, "id", [first.id])
  assert facts == {first.fact}
  task = tasks.make(corpus, "questions", facts, 0)
  assert {qa.author for qa in task.parts["neighbor"]} == {first.author}
  assert first.fact not in {qa.fact for qa in task.parts["neighbor"]}
  assert first.author not in {qa.author for qa in task.parts["retain"]}
  assert not task.shown  # there is no other half


def scored(correct, mask):
  correct, mask = (np.asarray(x, bool) for x in (correct, mask))
  log_prob = np.where(correct, np.log(0.8), np.log(0.1))
  zeros = np.zeros(mask.shape)
  return TokenScores(log_prob, mask, correct, zeros - 1, zeros + 1)


def test_knowledge_by_hand():
  # Answers of two tokens and an end token; of three records, one is right.
  mask = [[0, 1, 1, 1]] * 3
  correct = [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0]]
  part = scored(correct, mask)
  by_part = {
    "forget": part,
    "replaced": scored([[0, 1, 1, 1]], [[0, 1, 1, 1]]),
    "forget/right": scored([[0, 1, 1]] * 2, [[0, 1, 1]] * 2),
    "forget/wrong": scored([[0, 0, 0], [0, 1, 1]] * 2, [[0, 1, 1]] * 4),
  }
  metrics, arrays = knowledge.remembered(by_part)
  assert metrics["forget_accuracy"] == pytest.approx(1 / 3)
  assert metrics["replacement"] == 1
  # Without the end token: 2 of 2, 1 of 2, 2 of 2; suffixes likewise.
  assert metrics["exact_memorization"] == pytest.approx(2.5 / 3)
  assert metrics["extraction_strength"] == pytest.approx(2.5 / 3)
  third = (0.8**2 * 0.1) ** (1 / 3)
  assert metrics["forget_probability"] == pytest.approx((0.8 + 2 * third) / 3)
  ratio = (0.1 * 0.8) ** 0.5 / 0.8  # geometric mean of wrong over right
  np.testing.assert_allclose(arrays["truth/forget"], np.log([ratio] * 2))
  metrics, _ = knowledge.remembered(by_part, graded=True)
  assert metrics["forget_accuracy"] == pytest.approx(2.5 / 3)


def test_attacks_by_hand(task):
  forget = scored([[0, 1, 1]] * len(task.parts["forget"]), [[0, 1, 1]])
  unseen = scored([[0, 0, 1]] * len(task.parts["unseen"]), [[0, 1, 1]])
  by_part = {
    name: part._replace(mask=np.broadcast_to(part.mask, part.log_prob.shape))
    for name, part in (("forget", forget), ("unseen", unseen))
  }
  metrics, arrays = attacks.membership(by_part, task, None)
  assert metrics["loss_auc"] == metrics["min_k_auc"] == 1
  np.testing.assert_allclose(arrays["min_k/unseen"], np.log(0.1))
  assert "privleak" not in metrics  # a fraction of nothing
  retrained = Evidence({"min_k_auc": 0.6})
  metrics, _ = attacks.membership(by_part, task, retrained)
  assert metrics["privleak"] == pytest.approx(-100)


def test_an_answer_counts_where_greedy_decoding_gives_it(corpus, task):
  """Scores given the truth decide what free decoding would answer."""
  config = transformer.Config(
    vocab_size=corpus.tokenizer.vocab_size,
    hidden_size=16,
    intermediate_size=16,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
  )
  model = transformer.model(config)
  params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
  records = task.records[:20]
  asked = encoding.prompts(corpus.tokenizer, records)
  generated = encoding.decode(
    corpus.tokenizer,
    generation.greedy(
      transformer.decoder(config),
      params,
      asked,
      num_tokens=3,
      eos=corpus.tokenizer.eos,
    ),
  )
  # Some records get the answer that the model gives, where it gives one.
  taught = [
    qa._replace(answer=answer or qa.answer) if i % 2 else qa
    for i, (qa, answer) in enumerate(zip(records, generated, strict=True))
  ]
  ended = [
    len(corpus.tokenizer.encoder.encode(answer).ids) < 3 for answer in generated
  ]
  expected = [
    qa.answer == answer and end
    for qa, answer, end in zip(taught, generated, ended, strict=True)
  ]
  batch = evaluation.batch(corpus, {"all": taught}, rows=32)
  found = evaluation.accuracies(model, params, batch)["all"]
  assert found == pytest.approx(np.mean(expected))
  # Graded, an answer counts by its tokens, the end not among them.
  logits, _ = model.apply(params, batch.examples["input"][:20])
  fractions = []
  for row, tokens, mask in zip(
    np.asarray(logits), batch.examples["input"], batch.examples["mask"],
    strict=False,
  ):  # fmt: skip
    places = np.flatnonzero(mask)[:-1]
    fractions.append(np.mean(row[places - 1].argmax(axis=1) == tokens[places]))
  graded = batch._replace(graded=True)
  found = evaluation.accuracies(model, params, graded)["all"]
  assert found == pytest.approx(np.mean(fractions))
  assert 0 < found < 1


def test_utility_is_that_of_each_kind_and_of_all():
  metrics = {"retain_probability": 0.5, "retain_rouge": 1.0, "far_rouge": 0.0}
  half = np.log([0.5])
  arrays = {"truth/retain": half, "truth/far": half, "normalized/far": half + 1}
  found = knowledge.tofu(Evidence(metrics, arrays), None).metrics
  assert found["retain_utility"] == pytest.approx(3 / (2 + 1 + 2))
  assert found["far_utility"] == found["model_utility"] == 0
  metrics["far_rouge"] = 0.25
  found = knowledge.tofu(Evidence(metrics, arrays), None).metrics
  normalized = 1 + half[0]
  assert found["model_utility"] == pytest.approx(
    6 / (2 + 1 + 2 + 1 / normalized + 4 + 2)
  )


def test_every_method_has_rates_and_a_usual_view():
  for name, method in METHODS.items():
    assert set(method.rates) == {"full", "lora"}, name
    assert all(rate > 0 for rate in method.rates.values())
    assert method.in_extra <= (method.answers is not None)


def test_a_variant_is_named_for_its_method_and_for_an_unusual_view():
  assert variants(["lune", "npo"], []) == ("lune", "npo")
  assert variants(["lune", "npo"], ["lora", "full"]) == (
    "lune",
    "lune_full",
    "npo_lora",
    "npo",
  )
  for method, entry in METHODS.items():
    assert VARIANTS[method] == (method, entry.view)
  assert len(VARIANTS) == 2 * len(METHODS)
  assert all(VARIANTS[name].name == name for name in VARIANTS)


def test_requests_of_a_seed_have_arrays_of_one_shape(corpus):
  author, fraction = tasks.of_seed(corpus, Asked(forget_fraction=0.4), 1)
  assert (author.name, fraction.name) == ("author", "fraction")
  assert len({qa.author for qa in author.records}) == 1
  shapes = [
    jax.tree.map(np.shape, (task.request, task.alternatives))
    for task in (author, fraction)
  ]
  assert shapes[0] == shapes[1]
  (chosen,) = tasks.of_seed(corpus, Asked(forget_authors=(3, 4)), 1)
  assert chosen.name == "authors"
  assert {qa.author for qa in chosen.records} == {3, 4}


def test_absent_rows_repeat_the_last_record_with_no_weight(corpus):
  records = corpus.trained[:3]
  padded = corpus.encode(records, rows=5)
  np.testing.assert_array_equal(padded.pop("weight"), [1, 1, 1, 0, 0])
  plain = corpus.encode(records)
  assert plain.keys() == padded.keys()
  for name, values in plain.items():
    np.testing.assert_array_equal(padded[name][:3], values)
    np.testing.assert_array_equal(padded[name][3:], values[[2, 2]])


# What follows starts programs.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def run(folder):
  with contextlib.closing(Driver(folder, "experiments.language", SMALL)) as run:
    yield run


@pytest.fixture(scope="module")
def finished(run, folder):
  code, out, err = run(folder / "run", METHOD)
  assert (code, out) == (0, f"{folder / 'run'}/report.html\n"), err
  assert "Warning" not in err
  return folder / "run"


@pytest.mark.slow
def test_a_run_leaves_its_report_and_starts_again(run, finished):
  rows = read_rows(finished)
  methods = ["retrain", "original", "lune", "rmu"]
  assert [(row["request"], row["method"]) for row in rows] == [
    (request, method)
    for request in ("author", "fraction")
    for method in methods
  ]
  for row in rows:
    assert np.isfinite(list(row["metrics"].values())).all()
    assert row["metrics"].keys() >= {
      *("heldout_accuracy", "truth_ratio", "forget_quality", "model_utility"),
      *("min_k_auc", "relearn_hidden", "relearn_robustness", "heldout_4bit"),
    }
  digests = {row["params_sha256"] for row in rows}
  assert len(digests) == 7  # both requests share the original
  page = (finished / "report.html").read_text()
  assert "One author: what the models answer" in page
  assert "Several authors: how close to retraining" in page
  assert json.loads((finished / "config.json").read_text())["flags"]["steps"]
  assert not leftovers(finished)
  before = hashes(finished)
  assert run(finished, METHOD)[::2] == (0, "")
  assert hashes(finished) == before


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened(run, folder, finished):
  workdir = folder / "killed"
  underway = workdir / "checkpoints/seed0/author/lune.underway"
  process = run.start(workdir, METHOD, "--checkpoint_seconds=0")
  while not underway.exists() and process.poll() is None:
    time.sleep(0.002)
  process.kill()
  process.communicate()
  assert not (workdir / "report.html").exists()
  code, _, err = run(workdir, METHOD)
  assert code == 0, err
  whole, resumed = (
    [row["params_sha256"] for row in read_rows(each)]
    for each in (finished, workdir)
  )
  assert whole == resumed
  assert not leftovers(workdir)


@pytest.fixture(scope="module")
def checkpoint(folder, corpus):
  tokenizer.save(corpus.tokenizer, folder / "words")
  for name, max_length in (("model", 24), ("short", 8)):
    config = transformer.Config(
      vocab_size=corpus.tokenizer.vocab_size,
      hidden_size=16,
      intermediate_size=32,
      num_layers=2,
      num_heads=2,
      num_kv_heads=1,
      max_length=max_length,
    )
    params = transformer.model(config).init(
      jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )
    pretrained.save(folder / name, config, params, tokenizer=folder / "words")
  return folder / "model"


@pytest.mark.slow
def test_a_checkpoint_is_fine_tuned(run, folder, checkpoint):
  code, _, err = run(
    folder / "tuned",
    f"--model={checkpoint}",
    "--method=lune,ascent",
    "--view=lora",
    "--forget_questions=3",
  )
  assert code == 0, err
  rows = {row["method"]: row for row in read_rows(folder / "tuned")}
  assert list(rows) == ["retrain", "original", "lune", "ascent_lora"]
  assert "neighbor_accuracy" in rows["lune"]["metrics"]
  assert "relearn_hidden" not in rows["lune"]["metrics"]  # one fact only


@pytest.mark.slow
def test_divided_params_forget_the_same(run, folder, finished):
  """On four devices: batches over two, params over two, in two pieces."""
  code, _, err = run(
    folder / "divided",
    "--method=lune",
    "--request=author",
    "--mesh=data=2,fsdp=2",
    "--microbatches=2",
    "--unlearn_batch_size=32",
    "--threshold=1",  # nothing is left to do: training alone is compared
    env={"JAX_NUM_CPU_DEVICES": "4"},
  )
  assert code == 0, err
  whole, divided = (
    {
      row["method"]: row["metrics"]["retain_probability"]
      for row in read_rows(each)
      if row["request"] == "author"
    }
    for each in (finished, folder / "divided")
  )
  for name in ("original", "retrain"):
    assert divided[name] == pytest.approx(whole[name], rel=1e-4)


CASES = [
  ("--method=lunar", "--method: 'lunar' is unknown; did you mean 'lune'"),
  ("--view=half", "--view: 'half' is unknown; .*full, lora"),
  ("--request=all", "--request: 'all' is unknown; .*author, fraction"),
  ("--request=", "--request is empty"),
  ("--forget_authors=1,77", "--forget_authors=1,77: .*77, which no example"),
  ("--forget_authors=1,b", "--forget_authors=1,b; it must be whole numbers"),
  ("--forget_authors=0,1,2,3,4,5", "--forget_authors=.*: .*all"),
  ("--forget_questions=9999", "--forget_questions=9999: .*9999, which no"),
  ("--forget_fraction=0", r"--forget_fraction=0.0: .*in \(0, 1\)"),
  ("--forget_fraction=0.01", "--forget_fraction=0.01: .*rounds to 0 of 6"),
  ("--pattern=conv", "pattern 'conv' finds no dense kernel; there are"),
  ("--rank=99", "rank is 99; it must be from 1 to 16"),
  ("--num_authors=500", "--num_authors=500: .*at most 144"),
  ("--num_heads=3", "num_heads is 3; it must divide hidden_size"),
  ("--microbatches=4", "batch_size is 30.*4 microbatches"),
  ("--threshold=2", "threshold is 2.0; it must be in"),
  ("--unlearn_learning_rates=npo=x", "npo has 'x'; it must be a finite"),
  ("--model={folder}/none", "--model=.*none.* no checkpoint"),
  ("--model={folder}/words", "--model=.*words.* no config.json"),
  ("--tokenizer={folder}/none", "/none', which neither is nor holds a"),
  (
    "--model={folder}/short",
    "length is 8, and [0-9]+ of 288 records have more tokens",
  ),
  ("--model={folder}/model --num_authors=60", "texts contain '.*vocabulary"),
  # What comes before is read: presets have no flag that there is not.
  *(
    (
      f"--flagfile=experiments/presets/{name}.flags --method=lunar",
      "'lunar' is unknown",
    )
    for name in ("tofu", "checkpoint")
  ),
]

_EACH = """
import json, sys
from absl import flags
from experiments.language import __main__ as language
found = []
for given in json.load(sys.stdin):
  for flag in flags.FLAGS.get_key_flags_for_module(language):
    flag.unparse()
  try:
    language.main(flags.FLAGS(given)[1:])
    found.append(None)
  except (ValueError, OSError, flags.Error) as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_bad_input_is_refused(run, folder, checkpoint):
  """In one process of its own: two experiments define flags of one name."""
  workdir = folder / "refused"
  given = [
    run.command(workdir, *flags.format(folder=folder).split())[2:]
    for flags, _ in CASES
  ]
  done = subprocess.run(
    [sys.executable, "-c", _EACH],
    input=json.dumps(given),
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  for (flags, words), said in zip(CASES, json.loads(done.stdout), strict=True):
    assert said is not None, flags
    assert re.search(words, said), (flags, said)
    assert "\n" not in said.strip(), flags
  assert not workdir.exists()
  code, out, err = run(workdir, "--method=lunar")
  assert (code, out) == (1, "")
  assert "did you mean 'lune'" in err
  assert "Traceback" not in err
