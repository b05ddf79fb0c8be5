"""What a language model still knows, keeps and gives away.

A model is asked all records of a task at once and scored; metrics are functions
of these scores. Each function here gives metrics by name, and some the values
behind them, for figures.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.language.tasks import PREFIX, Corpus, Task, filled
from junlearn import tree
from junlearn.audit import membership, quantise
from junlearn.audit.relearn import Attack, robustness
from junlearn.audit.text import generation, memory, recall, scores, truth
from junlearn.audit.text import membership as leaks
from junlearn.audit.text.scores import TokenScores
from junlearn.data.text import encoding
from junlearn.data.text.encoding import QA
from junlearn.language import Decoder
from junlearn.loop import NonFiniteError
from junlearn.model import Model

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
_BATCH = 256
_TRACKED = 100  # records of each part of a short sheet
_SHOWN = 5  # answers of each part that are kept in words


class Sheet(NamedTuple):
  """Records to ask, as one array.

  Attributes:
    examples: of all parts.
    rows: of each part.
    graded: as of `Corpus`.
  """

  examples: dict[str, np.ndarray]
  rows: dict[str, slice]
  graded: bool


class Evidence(NamedTuple):
  """What an audit measured.

  Attributes:
    metrics: numbers by name.
    arrays: values behind them, for figures; `samples` are texts.
  """

  metrics: dict[str, float]
  arrays: dict[str, np.ndarray]


def sheet(
  corpus: Corpus,
  parts: Mapping[str, Sequence[QA]],
  *,
  rows: int | None = None,
) -> Sheet:
  """The records of the parts, filled up to so many rows."""
  qas = [qa for part in parts.values() for qa in part]
  ends = np.cumsum([len(part) for part in parts.values()]).tolist()
  slices = map(slice, [0, *ends[:-1]], ends)
  examples = filled(corpus.encode(qas), rows or len(qas))
  return Sheet(examples, dict(zip(parts, slices, strict=True)), corpus.graded)


def short_sheet(corpus: Corpus, parts: Mapping[str, Sequence[QA]]) -> Sheet:
  """The first records of each part, in as many rows for every task."""
  first = {name: part[:_TRACKED] for name, part in parts.items()}
  return sheet(corpus, first, rows=_TRACKED * len(parts))


def progress(corpus: Corpus, task: Task) -> Sheet:
  """Phrasings that were not named, and retained records."""
  return short_sheet(
    corpus, {name: task.parts[name] for name in ("heldout", "retain")}
  )


def accuracies(model: Model, params: Any, asked: Sheet) -> dict[str, float]:
  """How much greedy decoding gives of the answers, by part."""
  found = scores.collect(model, params, asked.examples, batch_size=_BATCH)
  right = _accuracy(found, asked.graded)
  return {name: float(right[rows].mean()) for name, rows in asked.rows.items()}


def collect(
  corpus: Corpus, model: Model, params: Any, task: Task
) -> dict[str, TokenScores]:
  """Scores of all parts of a task."""
  asked = sheet(corpus, task.parts)
  found = scores.collect(model, params, asked.examples, batch_size=_BATCH)
  return {
    name: TokenScores(*(leaf[rows] for leaf in found))
    for name, rows in asked.rows.items()
  }


def knowledge(
  by_part: Mapping[str, TokenScores], *, graded: bool = False
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """Accuracy and probability of each part; memorisation of what is asked.

  `replacement` is the accuracy of held-out phrasings where the counterfactual
  answers are the right ones. `graded` is as of `Corpus`.
  """
  metrics, arrays = {}, {}
  for name, part in by_part.items():
    if "/" in name:
      continue
    arrays[f"probability/{name}"] = memory.probability(part)
    metrics[f"{name}_accuracy"] = float(_accuracy(part, graded).mean())
    metrics[f"{name}_probability"] = float(arrays[f"probability/{name}"].mean())
  metrics["replacement"] = metrics.pop("replaced_accuracy")
  told = scores.without_end(by_part["forget"])
  for measure in (memory.exact_memorisation, memory.extraction_strength):
    metrics[measure.__name__] = float(measure(told).mean())
  for kind in [n.removesuffix("/right") for n in by_part if "/right" in n]:
    right, wrong = (
      memory.mean_nll(by_part[f"{kind}/{which}"])
      for which in ("right", "wrong")
    )
    wrong = wrong.reshape(len(right), -1)
    arrays[f"truth/{kind}"] = truth.log_truth_ratio(right, wrong)
    arrays[f"normalised/{kind}"] = truth.normalised_probability(right, wrong)
  return metrics, arrays


def say(
  corpus: Corpus,
  decoder: Decoder,
  params: Any,
  task: Task,
  *,
  num_tokens: int,
) -> tuple[dict[str, float], np.ndarray]:
  """ROUGE-L recall of answers in words, also behind a prefix that insists.

  Returns:
    Metrics, and part, question, true and given answer of some records
    `[records, 4]`.
  """
  parts = {**task.spoken, "prefixed": task.spoken["forget"]}
  qas = [qa for part in task.spoken.values() for qa in part]
  form = {"template": corpus.template, "multiple_of": 4}
  begun = encoding.prompts(corpus.tokenizer, qas, prefix=PREFIX, **form)
  length = begun["tokens"].shape[1]  # one length is one program
  plain = encoding.prompts(corpus.tokenizer, qas, length=length, **form)
  begun = tree.take(begun, slice(len(task.spoken["forget"])))
  spoken = generation.greedy(
    decoder,
    params,
    tree.concatenate(plain, begun),
    num_tokens=num_tokens,
    eos=corpus.tokenizer.eos,
    batch_size=32,
  )
  answers = iter(encoding.decode(corpus.tokenizer, spoken))
  metrics, samples = {}, []
  for name, part in parts.items():
    given = [next(answers) for _ in part]
    metrics[f"{name}_rouge"] = float(
      recall.rouge_l(given, [qa.answer for qa in part]).recall.mean()
    )
    if name in ("forget", "retain"):
      samples += [
        (name, qa.question, qa.answer, answer)
        for qa, answer in zip(part[:_SHOWN], given, strict=False)
      ]
  return metrics, np.asarray(samples)


def tofu(
  metrics: Mapping[str, float],
  arrays: Mapping[str, np.ndarray],
  retrained: Evidence | None,
) -> dict[str, float]:
  """Truth ratio, forget quality and model utility, where there is a truth.

  Utility is that of each kind that should stay, and of all, which is 0 where
  one of them is not known at all. The forget quality is the decimal logarithm
  of the p-value, at least -320.
  """
  kinds = [n.removeprefix("truth/") for n in arrays if n.startswith("truth/")]
  kept = [kind for kind in kinds if kind != "forget"]
  values = {
    kind: (
      metrics["retain_probability"]
      if kind == "retain"
      else arrays[f"normalised/{kind}"].mean(),
      metrics[f"{kind}_rouge"],
      truth.utility_truth(arrays[f"truth/{kind}"]),
    )
    for kind in kept
  }
  found = {f"{k}_utility": truth.model_utility(v) for k, v in values.items()}
  if values:
    every = itertools.chain.from_iterable(values.values())
    found["model_utility"] = truth.model_utility(every)
  if "forget" in kinds:
    ratio = arrays["truth/forget"]
    target = ratio if retrained is None else retrained.arrays["truth/forget"]
    quality = truth.forget_quality(ratio, target)
    found["truth_ratio"] = truth.forget_truth(ratio)
    found["forget_quality"] = max(quality.log10, -320.0)
  return found


def attack(
  by_part: Mapping[str, TokenScores], task: Task, retrained: Evidence | None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """AUC of attacks that tell forgotten records from those never trained on."""
  metrics, arrays = {}, {}
  for part in ("forget", "unseen"):
    told = scores.without_end(by_part[part])
    answers = [qa.answer for qa in task.parts[part]]
    for name in ATTACKS:
      extra = (answers,) if name == "zlib" else ()
      arrays[f"{name}/{part}"] = getattr(leaks, name)(told, *extra)
  for name in ATTACKS:
    metrics[f"{name}_auc"] = membership.auc(
      arrays[f"{name}/forget"], arrays[f"{name}/unseen"]
    )
  found = metrics["min_k_auc"]
  target = found if retrained is None else retrained.metrics["min_k_auc"]
  if target < 1:
    metrics["privleak"] = leaks.privleak(found, target)
  return metrics, arrays


def relearn(
  corpus: Corpus,
  model: Model,
  attacker: Attack,
  params: Any,
  task: Task,
  *,
  seed: int,
  retrained: Evidence | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """What an attacker finds who fine-tunes the model.

  `relearn_full`: on all records of the request, accuracy on other phrasings.
  `relearn_hidden`: on one phrasing of half of the facts, accuracy on the other
  half. `relearn_robustness`: of the former, see `relearn.robustness`.
  """
  capacity = tree.size(task.request.forget)
  attacks = {"full": (task.request.forget, task.parts["heldout"])}
  if task.known:
    known = filled(corpus.encode(task.known), capacity)
    attacks["hidden"] = (known, task.hidden)
  metrics, arrays = {}, {}
  for name, (examples, asked) in attacks.items():
    asked = short_sheet(corpus, {"asked": asked})

    def measure(params, asked=asked):
      return accuracies(model, params, asked)["asked"]

    try:
      curve = attacker(jax.random.key(seed), params, examples, measure)
    except NonFiniteError:  # a model so damaged that it cannot be trained
      continue
    arrays[f"relearn/{name}"] = np.asarray([curve.steps, curve.values]).T
    metrics[f"relearn_{name}"] = float(curve.values[-1])
  course = arrays.get("relearn/full")
  if course is not None:
    target = retrained.arrays["relearn/full"] if retrained else course
    metrics["relearn_robustness"] = robustness(
      (course[0, 1], course[-1, 1]), (target[0, 1], target[-1, 1])
    ).score
  return metrics, arrays


def round_weights(
  corpus: Corpus,
  model: Model,
  params: Any,
  task: Task,
  *,
  bits: Sequence[int],
  original: Any = None,
) -> dict[str, float]:
  """Accuracies with quantised weights, and weights rounded as the original's.

  The latter with the fewest bits.
  """
  parts = ("forget", "heldout", "retain")
  asked = short_sheet(corpus, {name: task.parts[name] for name in parts})
  metrics = {}
  for each in bits:
    rounded = quantise.quantise(params, bits=each)
    found = accuracies(model, rounded, asked)
    metrics |= {f"{name}_{each}bit": value for name, value in found.items()}
  if original is not None:
    metrics["same_codes"] = quantise.same_codes(params, original, bits=4)
  return metrics


def _accuracy(found, graded):
  """Whether greedy decoding gives each answer, or which share of its tokens.

  A token counts where it is the likeliest one after those before it. A whole
  answer ends; the share leaves its end out.
  """
  if graded:
    return memory.exact_memorisation(scores.without_end(found))
  return np.all(found.correct | ~found.mask, axis=1)
