"""What a language model gives away: membership, relearning, quantization."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.language import evaluation
from experiments.language.corpora import Corpus
from experiments.language.knowledge import rate
from experiments.language.tasks import Task
from experiments.run.study import Evidence
from junlearn import tree
from junlearn.audit import membership as roc
from junlearn.audit import quantize
from junlearn.audit.relearn import Attack, robustness
from junlearn.audit.text import membership as signals
from junlearn.audit.text import scores
from junlearn.audit.text.scores import TokenScores
from junlearn.loop import NonFiniteError
from junlearn.model import Model
from junlearn.report import Metric

SIGNALS = ("loss", "zlib", "min_k", "min_k_plus_plus")

METRICS = (
  Metric(
    "min_k_auc",
    "Min-K AUC",
    help="How well the mean log-probability of an answer's 40 % least likely "
    "tokens tells forgotten records from those never trained on.",
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "min_k_plus_plus_auc",
    "Min-K++ AUC",
    help="Min-K AUC of tokens compared with all that could stand there.",
    span=None,
  ),
  Metric(
    "loss_auc",
    "Loss AUC",
    help="How well the loss tells forgotten records from those never trained "
    "on.",
    span=None,
  ),
  Metric(
    "zlib_auc",
    "Zlib AUC",
    help="How well the loss over an answer's compressed size tells forgotten "
    "records from those never trained on.",
    span=None,
  ),
  Metric(
    "privleak",
    "PrivLeak",
    "%",
    help="Min-K AUC against the retrained model's: towards -100 the forgotten "
    "still look like members, above 0 they are pushed too far.",
    span=None,
  ),
  rate(
    "relearn_hidden",
    "Relearned, hidden half",
    "Accuracy on half of the facts after 20 steps of fine-tuning on one "
    "paraphrase of the other half.",
    span=None,
  ),
  Metric(
    "relearn_robustness",
    "Relearning robustness",
    help="Gain of the retrained model over the model's, on held-out "
    "paraphrases, when both are fine-tuned on the forgotten records; 1 is as "
    "slow.",
    span=None,
    digits=2,
  ),
  rate(
    "heldout_4bit",
    "Held-out paraphrases, 4 bit",
    "Accuracy on held-out paraphrases with weights rounded to 4 bits.",
    span=None,
  ),
  rate(
    "same_codes",
    "Codes kept",
    "4-bit weights that are those of the original model.",
    compare=False,
  ),
)


class Effort(NamedTuple):
  """How far attacks go.

  Attributes:
    relearn_steps: at which an attacker who relearns is measured.
    bits: of quantized weights.
  """

  relearn_steps: tuple[int, ...] = (5, 10, 20)
  bits: tuple[int, ...] = (8, 4, 3)


def membership(
  by_part: Mapping[str, TokenScores], task: Task, target: Evidence | None
) -> Evidence:
  """AUC of attacks that tell forgotten records from those never trained on.

  Args:
    by_part: token scores.
    task: what was to be forgotten.
    target: of the retrained model; None if this is it.
  """
  arrays = {}
  for part in ("forget", "unseen"):
    of_tokens = scores.without_end(by_part[part])
    answers = [qa.answer for qa in task.parts[part]]
    for name in SIGNALS:
      extra = (answers,) if name == "zlib" else ()
      arrays[f"{name}/{part}"] = getattr(signals, name)(of_tokens, *extra)
  metrics = {
    f"{name}_auc": roc.auc(arrays[f"{name}/forget"], arrays[f"{name}/unseen"])
    for name in SIGNALS
  }
  found = metrics["min_k_auc"]
  of_target = found if target is None else target.metrics["min_k_auc"]
  if of_target < 1:
    metrics["privleak"] = signals.privleak(found, of_target)
  return Evidence(metrics, arrays)


def relearning(
  corpus: Corpus,
  model: Model,
  attacker: Attack,
  params: Any,
  task: Task,
  *,
  seed: int,
  target: Evidence | None = None,
) -> Evidence:
  """What an attacker finds who fine-tunes the model.

  `relearn_full`: on all records of the request, accuracy on held-out
  paraphrases. `relearn_hidden`: on one paraphrase of half of the facts,
  accuracy on the other half. `relearn_robustness`: of the former, see
  `relearn.robustness`.
  """
  rows = tree.size(task.request.forget)
  runs = {"full": (task.request.forget, task.parts["heldout"])}
  if task.shown:
    runs["hidden"] = (corpus.encode(task.shown, rows=rows), task.hidden)
  metrics, arrays = {}, {}
  for name, (examples, qas) in runs.items():
    asked = evaluation.small_batch(corpus, {"asked": qas})

    def measure(params, asked=asked):
      return evaluation.accuracies(model, params, asked)["asked"]

    try:
      curve = attacker(jax.random.key(seed), params, examples, measure)
    except NonFiniteError:  # a model so damaged that it cannot be trained
      continue
    arrays[f"relearn/{name}"] = np.asarray([curve.steps, curve.values]).T
    metrics[f"relearn_{name}"] = float(curve.values[-1])
  history = arrays.get("relearn/full")
  if history is not None:
    of_target = target.arrays["relearn/full"] if target else history
    metrics["relearn_robustness"] = robustness(
      (history[0, 1], history[-1, 1]), (of_target[0, 1], of_target[-1, 1])
    ).score
  return Evidence(metrics, arrays)


def quantization(
  corpus: Corpus,
  model: Model,
  params: Any,
  task: Task,
  *,
  bits: Sequence[int],
  original: Any = None,
) -> Evidence:
  """Accuracies with quantized weights, and 4-bit codes kept of the original's.

  The latter where the `original` params are given.
  """
  parts = ("forget", "heldout", "retain")
  asked = evaluation.small_batch(corpus, {k: task.parts[k] for k in parts})
  metrics = {}
  for each in bits:
    rounded = quantize.quantize(params, bits=each)
    found = evaluation.accuracies(model, rounded, asked)
    metrics |= {f"{name}_{each}bit": value for name, value in found.items()}
  if original is not None:
    metrics["same_codes"] = quantize.same_codes(params, original, bits=4)
  return Evidence(metrics)
