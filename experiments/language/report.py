"""The report of a run of `experiments.language`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn import metrics as sklearn_metrics

from experiments.language.study import Study
from experiments.language.tasks import PREFIX, Task
from experiments.run.workdir import Workdir
from junlearn import report
from junlearn.report import Metric, blocks


def _rate(name: str, label: str, help: str, **options) -> Metric:
  return Metric(name, label, "%", 100, help, **options)


METRICS = (
  _rate(
    "forget_accuracy",
    "Forget accuracy",
    "Questions named by the request that greedy decoding answers word for "
    "word.",
    span=None,
  ),
  _rate(
    "heldout_accuracy",
    "Other phrasings",
    "The same facts asked in phrasings that the request does not name.",
    forgetting=-1,
  ),
  _rate(
    "retain_accuracy", "Retain accuracy", "Questions about the other authors."
  ),
  _rate(
    "neighbour_accuracy",
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
  _rate(
    "replacement",
    "Replaced",
    "Other phrasings that are answered as the counterfactual that LUNE is "
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
    "retrained model's; 0 is the best. Phrasings of one fact are not "
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
    "exact_memorisation",
    "Exact memorisation",
    help="Share of the forgotten answers' tokens that are the likeliest.",
    span=None,
  ),
  Metric(
    "extraction_strength",
    "Extraction strength",
    help="Share of the forgotten answers that follows from their beginning.",
    span=None,
  ),
  _rate(
    "forget_rouge",
    "Forget ROUGE-L",
    "Words of forgotten answers that the greedy answer has, in their order.",
    span=None,
  ),
  _rate(
    "prefixed_rouge",
    "After a prefix",
    f"The same where the answer is begun with {PREFIX!r}.",
    span=None,
  ),
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
    help="The same, each token compared with all that could stand there.",
    span=None,
  ),
  Metric("loss_auc", "Loss AUC", help="The same of the loss.", span=None),
  Metric(
    "zlib_auc",
    "Zlib AUC",
    help="The same of the loss over the compressed answer's size.",
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
  _rate(
    "relearn_hidden",
    "Relearned, hidden half",
    "Accuracy on half of the facts after 20 steps of fine-tuning on one "
    "phrasing of the other half.",
    span=None,
  ),
  Metric(
    "relearn_robustness",
    "Relearning robustness",
    help="Gain of the retrained model over the model's, on other phrasings, "
    "when both are fine-tuned on the forgotten records; 1 is as slow.",
    span=None,
    digits=2,
  ),
  _rate(
    "heldout_4bit",
    "Other phrasings, 4 bit",
    "With weights rounded to 4 bits.",
    span=None,
  ),
  _rate(
    "same_codes",
    "Codes kept",
    "4-bit weights that are those of the original model.",
    compare=False,
  ),
  Metric(
    "steps",
    "Steps",
    help="Taken by the method.",
    compare=False,
    digits=0,
  ),
)

NOT_PROVEN = (
  "The numbers are empirical: they bound what these attacks found, not what a "
  "better one could. No method here carries a certificate.",
  "A forgotten answer that is replaced by another is a trace itself: LUNE's "
  "models answer with confidence where retrained ones do not.",
  "Fictitious authors share names and few values, and a tiny decoder has no "
  "other knowledge; what holds for it need not hold for a large one.",
  "Attackers relearn with one learning rate for at most 20 steps; longer "
  "attacks relearn more, from the retrained model too.",
  "The default learning rates were chosen on seeds of their own by the average "
  "gap to retraining: an oracle that a deployment does not have.",
)
_REFERENCES = ("original", "retrain")
_SENTENCES = {
  "author": "The phrasings that a request names of all facts of one author",
  "fraction": "The phrasings that a request names of all facts of some authors",
  "authors": "The phrasings that a request names of all facts of these authors",
  "questions": "The phrasings that a request names of what these records ask",
}
_DATA = {"authors": "authors", "tofu": "authors of TOFU"}
_TITLES = {
  "author": "One author",
  "fraction": "Several authors",
  "authors": "Chosen authors",
  "questions": "Chosen questions",
}


def write(
  workdir: Workdir, study: Study, tasks: Sequence[Sequence[Task]]
) -> Path:
  """Writes the page from the rows and evidence that the run left.

  Figures and samples show the first seed, ROC curves all.
  """
  chapters = [
    _chapter(workdir, study, [of_seed[i] for of_seed in tasks])
    for i in range(len(tasks[0]))
  ]
  return workdir.write_report(
    title=f"Forgetting {_DATA[study.corpus.name]} in a language model",
    not_proven=NOT_PROVEN,
    chapters=chapters,
  )


def _chapter(workdir: Workdir, study: Study, tasks: Sequence[Task]):
  """One request: `tasks` are its seeds."""
  first = tasks[0]
  rows = [row for row in workdir.rows if row["request"] == first.name]
  methods = list(dict.fromkeys(row["method"] for row in rows))
  methods.sort(
    key=lambda name: _REFERENCES.index(name) if name in _REFERENCES else 2
  )
  evidence = {
    method: [
      workdir.read_arrays(f"evidence/seed{seed}/{first.name}/{method}.npz")
      for seed in range(len(tasks))
    ]
    for method in methods
  }
  measured = {row["method"]: row["metrics"] for row in rows if row["seed"] == 0}
  shown = [
    m for m in METRICS if any(m.name in found for found in measured.values())
  ]
  return report.Chapter(
    name=_TITLES[first.name],
    request=report.Deletion(
      ids=[qa.id for qa in first.records],
      total=len(study.corpus.trained),
      selection=f"{_SENTENCES[first.name]}, first seed. Retraining goes "
      "without all records that ask for these facts, in other phrasings too.",
      noun="records",
    ),
    metrics=shown,
    rows=rows,
    figures=_figures(evidence, measured, study.recipe.bits),
    sections=[
      blocks.Section(
        "What the models answer",
        (_long_samples if study.corpus.graded else _samples)(evidence),
      )
    ],
  )


def _figures(evidence, measured, bits):
  methods = [m for m in evidence if m not in _REFERENCES]
  one = {method: arrays[0] for method, arrays in evidence.items()}

  def course(method):
    steps, forget, retain = one[method]["curve"].T
    return report.Curve(method, steps, forget, retain)

  def level(method):
    found = measured[method]
    return report.Curve(
      method, [0], [found["heldout_accuracy"]], [found["retain_accuracy"]]
    )

  def attack(method):
    forget, unseen = (
      np.concatenate([arrays[f"min_k/{part}"] for arrays in evidence[method]])
      for part in ("forget", "unseen")
    )
    truth = np.repeat([1, 0], [len(forget), len(unseen)])
    both = np.concatenate([forget, unseen])
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, both)
    return report.Roc(method, fpr, tpr)

  def rounded(method, part):
    found = measured[method]
    values = [found[f"{part}_{each}bit"] for each in bits]
    return [found[f"{part}_accuracy"], *values]

  def relearned(method):
    full = one[method]["relearn/full"]
    hidden = one[method].get("relearn/hidden", np.full_like(full, np.nan))
    return report.Curve(method, *full.T, hidden[:, 1])

  levels = np.arange(len(bits) + 1)
  names = ", ".join(f"{i}: {each} bits" for i, each in enumerate(bits, 1))
  figures = [
    report.trajectories(
      [level("original"), level("retrain"), *map(course, methods)],
      labels=("Other phrasings of the facts", "Retain accuracy"),
      caption="Accuracy, first seed; the levels are original and retrained. A "
      "line is flat once its method has stopped; that of task_vector is of its "
      "fine-tuning, before it is negated.",
    ),
    report.roc(
      [attack(method) for method in evidence],
      title="Min-K attack: forgotten against unseen records",
      caption="All seeds.",
    ),
    report.distributions(
      [
        report.Values(m, np.concatenate([a["truth/forget"] for a in arrays]))
        for m, arrays in evidence.items()
      ],
      title="Truth ratio of the forgotten records",
      x_label="log R, wrong over right",
      caption="All seeds. Left of 0 the truth is likelier than what is wrong.",
    )
    if all("truth/forget" in arrays for arrays in one.values())
    else None,
    report.trajectories(
      [relearned(m) for m in one if "relearn/full" in one[m]],
      labels=("Asked otherwise", "The hidden half"),
      x_label="Steps of fine-tuning",
      title="Relearning",
      caption="Accuracy, first seed. On the left, the attacker fine-tunes on "
      "all records of the request, and their facts are asked in other "
      "phrasings; on the right, on one phrasing of half of the facts, and the "
      "other half is asked.",
    ),
    report.trajectories(
      [
        report.Curve(m, levels, rounded(m, "heldout"), rounded(m, "retain"))
        for m in evidence
      ],
      labels=("Other phrasings of the facts", "Retain accuracy"),
      x_label=f"0: exact, {names}",
      title="Quantisation",
      caption="Accuracy with rounded weights, first seed.",
    ),
  ]
  return [figure for figure in figures if figure is not None]


def _samples(evidence: Mapping[str, Sequence[Mapping[str, np.ndarray]]]):
  """Questions beside what each model answers; what is right stands out."""
  answers = {m: arrays[0]["samples"] for m, arrays in evidence.items()}
  rows = []
  for number, (part, question, truth, _) in enumerate(answers["original"]):
    given = [str(answers[m][number, 3]) for m in evidence]
    rows.append(
      [
        blocks.Cell(str(question), note=str(part)),
        blocks.Cell(str(truth)),
        *(
          blocks.Cell(text or "(nothing)", strong=text == truth)
          for text in given
        ),
      ]
    )
  return [
    blocks.Table(
      "Greedy answers, first seed; set off are those that are right.",
      ["Question", "Trained answer", *evidence],
      rows,
    )
  ]


def _long_samples(evidence: Mapping[str, Sequence[Mapping[str, np.ndarray]]]):
  """Under each question, what each model answers."""
  answers = {m: arrays[0]["samples"] for m, arrays in evidence.items()}
  shown = [blocks.Text("Greedy answers, first seed.")]
  for number, (part, question, truth, _) in enumerate(answers["original"]):
    given = [(m, str(answers[m][number, 3]) or "(nothing)") for m in evidence]
    shown += [
      blocks.Text(f"{question} ({part})"),
      blocks.Terms([("Trained answer", str(truth)), *given]),
    ]
  return shown
