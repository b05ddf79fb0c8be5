"""What the page of a language model shows beside its tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.run import figures
from experiments.run.findings import Findings
from junlearn import report
from junlearn.report import blocks


def of_request(findings: Findings, *, bits: Sequence[int]) -> list[Any]:
  """All figures; what a run did not measure is None.

  Args:
    findings: of a request.
    bits: of quantized weights.
  """
  return [
    figures.progress(
      findings,
      ("heldout_accuracy", "retain_accuracy"),
      labels=("Held-out paraphrases of the facts", "Retain accuracy"),
      caption="Accuracy, first seed; the levels are original and retrained. A "
      "line is flat once its method has stopped; that of task_vector is of its "
      "fine-tuning, before it is negated.",
    ),
    figures.attack(
      findings,
      "min_k/forget",
      "min_k/unseen",
      title="Min-K attack: forgotten against unseen records",
      caption="All seeds.",
    ),
    figures.distributions(
      findings,
      "truth/forget",
      title="Truth ratio of the forgotten records",
      x_label="log R, wrong over right",
      caption="All seeds. Left of 0 the truth is likelier than what is wrong.",
    ),
    _relearning(findings),
    _quantization(findings, bits),
  ]


def _relearning(findings):
  def curve(method):
    arrays = findings.first(method)
    full = arrays["relearn/full"]
    hidden = arrays.get("relearn/hidden", np.full_like(full, np.nan))
    return report.Curve(method, *full.T, hidden[:, 1])

  relearned = [
    name for name in findings.methods if "relearn/full" in findings.first(name)
  ]
  return report.trajectories(
    [curve(method) for method in relearned],
    labels=("Held-out paraphrases", "The hidden half"),
    x_label="Steps of fine-tuning",
    title="Relearning",
    caption="Accuracy, first seed. On the left, the attacker fine-tunes on "
    "all records of the request, and their facts are asked in held-out "
    "paraphrases; on the right, on one paraphrase of half of the facts, and "
    "the other half is asked.",
  )


def _quantization(findings, bits):
  def curve(method):
    found = findings.metrics(method)
    heldout, retain = (
      [found[f"{part}_{rounded}"] for rounded in ("accuracy", *grids)]
      for part in ("heldout", "retain")
    )
    return report.Curve(method, np.arange(len(bits) + 1), heldout, retain)

  grids = [f"{each}bit" for each in bits]
  names = ", ".join(f"{i}: {each} bits" for i, each in enumerate(bits, 1))
  return report.trajectories(
    [curve(method) for method in findings.methods],
    labels=("Held-out paraphrases of the facts", "Retain accuracy"),
    x_label=f"0: exact, {names}",
    title="Quantization",
    caption="Accuracy with rounded weights, first seed.",
  )


def samples(findings: Findings) -> list[Any]:
  """Questions beside what each model answers; what is right stands out."""
  rows = []
  for number, (part, question, truth, _) in enumerate(_asked(findings)):
    given = [_answer(findings, name, number) for name in findings.methods]
    rows.append(
      [
        blocks.Cell(str(question), note=str(part)),
        blocks.Cell(str(truth)),
        *(blocks.Cell(text, strong=text == truth) for text in given),
      ]
    )
  return [
    blocks.Table(
      "Greedy answers, first seed; set off are those that are right.",
      ["Question", "Trained answer", *findings.methods],
      rows,
    )
  ]


def long_samples(findings: Findings) -> list[Any]:
  """Under each question, what each model answers."""
  shown = [blocks.Text("Greedy answers, first seed.")]
  for number, (part, question, truth, _) in enumerate(_asked(findings)):
    given = [(m, _answer(findings, m, number)) for m in findings.methods]
    shown += [
      blocks.Text(f"{question} ({part})"),
      blocks.Terms([("Trained answer", str(truth)), *given]),
    ]
  return shown


def _asked(findings):
  return findings.first("original")["samples"]


def _answer(findings, method, number):
  return str(findings.first(method)["samples"][number, 3]) or "(nothing)"
