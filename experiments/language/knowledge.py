"""What a language model still knows, and what it keeps.

A model is asked all records of a task at once; metrics are functions of its
token scores, and of answers that it generates.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.language.corpora import PREFIX, Corpus
from experiments.language.evaluation import accuracy
from experiments.language.tasks import Task
from experiments.run.study import Evidence
from junlearn import tree
from junlearn.audit.text import generation, memory, recall, scores, truth
from junlearn.audit.text.scores import TokenScores
from junlearn.data.text import encoding
from junlearn.language import Decoder
from junlearn.report import Metric

_SHOWN = 5  # answers of each part that are kept in words


def rate(name: str, label: str, help: str, **options: Any) -> Metric:
  """A metric shown in percent."""
  return Metric(name, label, "%", 100, help, **options)


METRICS = (
  rate(
    "forget_accuracy",
    "Forget accuracy",
    "Questions named by the request that greedy decoding answers word for "
    "word.",
    span=None,
  ),
  rate(
    "heldout_accuracy",
    "Held-out paraphrases",
    "The same facts asked in paraphrases that the request does not name.",
    forgetting=-1,
  ),
  rate(
    "retain_accuracy", "Retain accuracy", "Questions about the other authors."
  ),
  rate(
    "neighbor_accuracy",
    "Same author",
    "Questions about other facts of the authors of what was forgotten.",
    span=None,
  ),
  Metric(
    "forget_probability",
    "p(answer)",
    help="Of the forgotten answers, the geometric mean over tokens, end "
    "included.",
    forgetting=-1,
  ),
  rate(
    "replacement",
    "Replaced",
    "Held-out paraphrases that are answered as the counterfactual that LUNE is "
    "taught.",
    span=None,
  ),
  Metric(
    "truth_ratio",
    "Truth ratio",
    help="Mean of min(R, 1/R) over the forgotten records, R the probability of "
    "wrong answers over that of the right one; 1 where truth does not stand "
    "out.",
  ),
  Metric(
    "forget_quality",
    "Forget quality, log10 p",
    help="Kolmogorov-Smirnov test that these R are distributed as the "
    "retrained model's; 0 is the best. Paraphrases of one fact are not "
    "independent, so that p is too small for a test.",
    digits=1,
    span=None,
  ),
  Metric(
    "model_utility",
    "Model utility",
    help="Harmonic mean of probability, ROUGE-L recall and truth of what "
    "should stay.",
  ),
  Metric(
    "exact_memorization",
    "Exact memorization",
    help="Fraction of the forgotten answers' tokens that are the likeliest.",
    span=None,
  ),
  Metric(
    "extraction_strength",
    "Extraction strength",
    help="Fraction of the forgotten answers that follows from their beginning.",
    span=None,
  ),
  rate(
    "forget_rouge",
    "Forget ROUGE-L",
    "Words of forgotten answers that the greedy answer has, in their order.",
    span=None,
  ),
  rate(
    "prefixed_rouge",
    "After a prefix",
    f"Words of forgotten answers that are given behind {PREFIX!r}.",
    span=None,
  ),
)


def remembered(
  by_part: Mapping[str, TokenScores], *, graded: bool = False
) -> Evidence:
  """Accuracy and probability of each part; memorization of what is asked.

  `replacement` is the accuracy of held-out paraphrases where the counterfactual
  answers are the right ones. `graded` is as of `Corpus`.
  """
  metrics, arrays = {}, {}
  for name, part in by_part.items():
    if "/" in name:
      continue
    arrays[f"probability/{name}"] = memory.probability(part)
    right = accuracy(part, graded=graded)
    metrics[f"{name}_accuracy"] = float(right.mean())
    metrics[f"{name}_probability"] = float(arrays[f"probability/{name}"].mean())
  metrics["replacement"] = metrics.pop("replaced_accuracy")
  asked = scores.without_end(by_part["forget"])
  metrics |= {
    "exact_memorization": float(memory.exact_memorization(asked).mean()),
    "extraction_strength": float(memory.extraction_strength(asked).mean()),
  }
  for kind in [n.removesuffix("/right") for n in by_part if "/right" in n]:
    right, wrong = (
      memory.mean_nll(by_part[f"{kind}/{which}"])
      for which in ("right", "wrong")
    )
    wrong = wrong.reshape(len(right), -1)
    arrays[f"truth/{kind}"] = truth.log_truth_ratio(right, wrong)
    arrays[f"normalized/{kind}"] = truth.normalized_probability(right, wrong)
  return Evidence(metrics, arrays)


def generated(
  corpus: Corpus,
  decoder: Decoder,
  params: Any,
  task: Task,
  *,
  num_tokens: int,
) -> Evidence:
  """ROUGE-L recall of generated answers, also behind a prefix that insists.

  Its array has part, question, true and generated answer of some records
  `[records, 4]`.
  """
  parts = {**task.generated, "prefixed": task.generated["forget"]}
  qas = [qa for part in task.generated.values() for qa in part]
  form = {"template": corpus.template, "multiple_of": 4}
  begun = encoding.prompts(corpus.tokenizer, qas, prefix=PREFIX, **form)
  length = begun["tokens"].shape[1]  # one length is one program
  plain = encoding.prompts(corpus.tokenizer, qas, length=length, **form)
  begun = tree.take(begun, slice(len(task.generated["forget"])))
  tokens = generation.greedy(
    decoder,
    params,
    tree.concatenate(plain, begun),
    num_tokens=num_tokens,
    eos=corpus.tokenizer.eos,
    batch_size=32,
  )
  answers = iter(encoding.decode(corpus.tokenizer, tokens))
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
  return Evidence(metrics, {"samples": np.asarray(samples)})


def tofu(found: Evidence, target: Evidence | None) -> Evidence:
  """Truth ratio, forget quality and model utility, where there is a truth.

  Utility is that of each kind that should stay, and of all, which is 0 where
  one of them is not known at all. The forget quality is the decimal logarithm
  of the p-value, at least -320.

  Args:
    found: what is `remembered` and `generated`.
    target: of the retrained model; None if this is it.
  """
  arrays, of_kind = found.arrays, found.metrics
  kinds = [n.removeprefix("truth/") for n in arrays if n.startswith("truth/")]
  values = {
    kind: (
      of_kind["retain_probability"]
      if kind == "retain"
      else arrays[f"normalized/{kind}"].mean(),
      of_kind[f"{kind}_rouge"],
      truth.utility_truth(arrays[f"truth/{kind}"]),
    )
    for kind in kinds
    if kind != "forget"
  }
  metrics = {f"{k}_utility": truth.model_utility(v) for k, v in values.items()}
  if values:
    every = itertools.chain.from_iterable(values.values())
    metrics["model_utility"] = truth.model_utility(every)
  if "forget" in kinds:
    ratio = arrays["truth/forget"]
    of_target = (target or found).arrays["truth/forget"]
    quality = truth.forget_quality(ratio, of_target)
    metrics["truth_ratio"] = truth.forget_truth(ratio)
    metrics["forget_quality"] = max(quality.log10, -320.0)
  return Evidence(metrics)
