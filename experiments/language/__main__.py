"""Makes a language model forget authors, and measures how well.

    python -m experiments.language --workdir=DIR

With no flags: fictitious authors, a tiny decoder trained from scratch, requests
for one author and for a tenth of them, LUNE against baselines, 3 seeds; DIR
holds the report. `--dataset=tofu` takes TOFU; `--model=FOLDER` a checkpoint and
tokenizer as the Hugging Face hub has them, which is then fine-tuned on the
data (see README.md for the rest).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.language import recipe as language_recipe
from experiments.language import report as language_report
from experiments.language import tasks as language_tasks
from experiments.language.audit import Evidence
from experiments.language.methods import METHODS, VIEWS
from experiments.language.recipe import Recipe
from experiments.language.study import Study
from experiments.language.tasks import Corpus, Task
from experiments.run import program
from experiments.run.meter import Meter
from experiments.run.session import Outcome, Session
from experiments.run.workdir import Workdir
from junlearn.data.text import encoding, tokenizer
from junlearn.nn.text import pretrained
from junlearn.parallel import sharding

_DEFAULT = Recipe()
_REQUESTS = ("author", "fraction")

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/language", "Folder of the run; continued if begun."
)
_DATASET = flags.DEFINE_enum(
  "dataset", "authors", ["authors", "tofu"], "Whose questions are learned."
)
_NUM_AUTHORS = flags.DEFINE_integer(
  "num_authors",
  None,
  "Authors to train on (default 60; of tofu all 200).",
  lower_bound=2,
)
_ANSWERS = flags.DEFINE_enum(
  "answers",
  "value",
  ["value", "sentence"],
  "Answers of the fictitious authors.",
)
_MODEL = flags.DEFINE_string(
  "model", None, "Folder of a checkpoint to start from; else a fresh decoder."
)
_DTYPE = flags.DEFINE_enum(
  "dtype",
  None,
  ["float32", "bfloat16"],
  "Of the checkpoint's params and computation; by default its own.",
)
_TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  None,
  "A tokenizer.json or its folder; by default the checkpoint's, or one built "
  "of the texts.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size", 2048, "Of the tokenizer built of tofu's texts.", lower_bound=258
)
_TEMPLATE = flags.DEFINE_enum(
  "template", "plain", list(encoding.TEMPLATES), "Of prompts and answers."
)
_METHOD = flags.DEFINE_list(
  "method",
  ["lune", "ascent", "grad_difference", "npo", "simnpo", "idk", "rmu"],
  f"Methods to compare: all, or some of {', '.join(METHODS)}.",
)
_VIEW = flags.DEFINE_list(
  "view",
  [],
  f"Free params: {', '.join(VIEWS)}; by default each method's usual.",
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "Seeds; each draws its own authors, params and batches.",
  lower_bound=1,
)  # fmt: skip
_REQUEST = flags.DEFINE_list(
  "request",
  list(_REQUESTS),
  "Requests: author (one) and fraction (of the authors).",
)
_FRACTION = flags.DEFINE_float(
  "forget_fraction", 0.1, "Of the authors, for the request fraction."
)
_AUTHORS = flags.DEFINE_list(
  "forget_authors", None, "Forget these authors, by number; the only request."
)
_QUESTIONS = flags.DEFINE_list(
  "forget_questions",
  None,
  "Forget what the records of these ids ask for; the only request.",
)
_SIZES = [
  flags.DEFINE_integer(
    name, getattr(_DEFAULT, name), f"Of {what}.", lower_bound=1
  )
  for name, what in (
    ("hidden_size", "a fresh decoder"),
    ("intermediate_size", "its feed-forward maps"),
    ("num_layers", "its blocks, how many"),
    ("num_heads", "its attention, how many"),
    ("batch_size", "training: records a step"),
    ("unlearn_batch_size", "unlearning: records of each part a step"),
    ("microbatches", "a batch, how many, where it does not fit at once"),
    ("rank", "adapters"),
  )
]
_STEPS = [
  flags.DEFINE_integer(name, getattr(_DEFAULT, name), what, lower_bound=0)
  for name, what in (
    ("steps", "Steps of training or fine-tuning."),
    ("unlearn_steps", "The most that a method takes."),
  )
]
_NUMBERS = [
  flags.DEFINE_float(name, getattr(_DEFAULT, name), what, lower_bound=0.0)
  for name, what in (
    ("learning_rate", "Of training or fine-tuning."),
    ("alpha", "Adapters are scaled by alpha / rank."),
    ("relearn_learning_rate", "Of the attacker who relearns."),
    ("threshold", "p(answer) at which LUNE stops."),
    ("beta", "Of NPO: the longer the answers, the smaller."),
  )
]
_PATTERN = flags.DEFINE_string(
  "pattern", _DEFAULT.pattern, "Modules with adapters, a regular expression."
)
_LEARNING_RATES = flags.DEFINE_list(
  "unlearn_learning_rates",
  [],
  "Learning rates of methods, as lune=0.001,npo=0.0003.",
)

_MESH = flags.DEFINE_string(
  "mesh",
  None,
  "Divides params and batches over all devices, as data=2,fsdp=4.",
)

flags.mark_flags_as_mutual_exclusive([_AUTHORS, _QUESTIONS])
flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  runs = _methods()
  rates = program.numbers(_LEARNING_RATES.name, METHODS)
  recipe = _DEFAULT._replace(
    pattern=_PATTERN.value,
    **{flag.name: flag.value for flag in (*_SIZES, *_STEPS, *_NUMBERS)},
  )
  layout = None
  if _MESH.value is not None:
    with program.naming(_MESH.name):
      layout = sharding.Layout(sharding.mesh(_MESH.value))
  start = None
  if _MODEL.value is not None:
    with program.naming(_MODEL.name):
      start = pretrained.load(_MODEL.value, dtype=_DTYPE.value, sharding=layout)
  corpus = _corpus(start)
  language_recipe.check(
    language_recipe.configure(corpus, recipe, start),
    recipe,
    runs.values(),
    fresh=start is None,
    layout=layout,
  )
  tasks = _tasks(corpus)
  with Workdir(_WORKDIR.value, program.own_flags()) as workdir:
    with Session(
      workdir,
      _total(recipe, tasks, len(runs)),
      every=5,
      checkpoint_seconds=flags.FLAGS.checkpoint_seconds,
    ) as session:
      study = Study(corpus, recipe, session, start=start, layout=layout)
      for seed, of_seed in enumerate(tasks):
        original = study.train("original", seed)
        for task in of_seed:
          _run_task(study, workdir, seed, task, original, runs, rates)
    print(language_report.write(workdir, study, tasks))


def _run_task(
  study: Study,
  workdir: Workdir,
  seed: int,
  task: Task,
  original: Outcome,
  runs: Mapping[str, tuple[str, str]],
  rates: Mapping[str, float],
) -> None:
  """Both references and every method, for one request of one seed."""
  retrained = study.train(f"{task.name}/retrain", seed, task)

  def audit(method: str, outcome: Outcome, **given: Any) -> Evidence:
    kept = f"evidence/seed{seed}/{task.name}/{method}.npz"
    row = workdir.row(method, seed, request=task.name)
    arrays = workdir.read_arrays(kept)
    if row is not None and arrays is not None:
      return Evidence(row["metrics"], arrays)
    meter = Meter()
    evidence = study.audit(outcome.params, task, seed=seed, **given)
    curve = {"curve": np.asarray(outcome.curve)}
    workdir.write_arrays(kept, evidence.arrays | curve)
    if row is None:
      workdir.add_row(
        outcome.row(
          method,
          seed,
          evidence.metrics,
          retrain=retrained.seconds,
          audit=meter,
          request=task.name,
        )
      )
    return evidence

  target = audit("retrain", retrained)
  audit("original", original, retrained=target)
  for name, (method, view) in runs.items():
    outcome = study.unlearn(
      f"{task.name}/{name}",
      seed,
      task,
      original.params,
      method=method,
      view=view,
      learning_rate=rates.get(method),
    )
    audit(name, outcome, original=original.params, retrained=target)


def _methods() -> dict[str, tuple[str, str]]:
  """Method and view of each row; it is named for both if that is unusual."""
  methods = list(METHODS) if _METHOD.value == ["all"] else _METHOD.value
  program.choose(_METHOD.name, methods, METHODS)
  program.choose(_VIEW.name, _VIEW.value, VIEWS)
  runs = {}
  for method in methods:
    usual = METHODS[method].view
    for view in _VIEW.value or [usual]:
      runs[method if view == usual else f"{method}_{view}"] = method, view
  return runs


def _corpus(start: tuple[Any, Any] | None) -> Corpus:
  encoder, options = None, {}
  folder = _TOKENIZER.value or _MODEL.value
  if folder is not None:
    flag = _MODEL if _TOKENIZER.value is None else _TOKENIZER
    with program.naming(flag.name):
      encoder = tokenizer.load(folder)
  if start is not None:
    options["max_length"] = start[0].max_length
  options |= {"template": _TEMPLATE.value, "encoder": encoder}
  if _DATASET.value == "authors":
    with program.naming(_NUM_AUTHORS.name):
      return language_tasks.fictitious(
        _NUM_AUTHORS.value or 60, answers=_ANSWERS.value, **options
      )
  with program.naming(_DATASET.name):
    return language_tasks.tofu_authors(
      _NUM_AUTHORS.value or 200,
      vocab_size=_VOCAB_SIZE.value,
      data_dir=flags.FLAGS.data_dir,
      manual_dir=flags.FLAGS.manual_dir,
      **options,
    )


def _tasks(corpus: Corpus) -> list[list[Task]]:
  """The requests of every seed, with arrays of the same shapes."""
  facts = [_facts(corpus, seed) for seed in range(_SEEDS.value)]
  capacity = max(
    language_tasks.num_known(corpus, chosen)
    for of_seed in facts
    for chosen in of_seed.values()
  )
  return [
    [
      language_tasks.make(corpus, name, chosen, seed, capacity=capacity)
      for name, chosen in of_seed.items()
    ]
    for seed, of_seed in enumerate(facts)
  ]


def _facts(corpus: Corpus, seed: int) -> dict[str, frozenset[int]]:
  """What each request of a seed forgets."""
  for flag, column in ((_AUTHORS, "author"), (_QUESTIONS, "id")):
    if flag.value is not None:
      if not all(entry.isdecimal() for entry in flag.value):
        raise ValueError(
          f"--{flag.name}={','.join(flag.value)}; it must be whole numbers."
        )
      numbers = [int(entry) for entry in flag.value]
      with program.naming(flag.name):
        name = flag.name.removeprefix("forget_")
        return {name: language_tasks.by_column(corpus, column, numbers)}
  program.choose(_REQUEST.name, _REQUEST.value, _REQUESTS)
  if not _REQUEST.value:
    raise ValueError(f"--{_REQUEST.name} is empty; one request is the least.")
  chosen = {}
  for name in _REQUEST.value:
    if name == "author":
      chosen[name] = language_tasks.one_author(corpus, seed)
      continue
    with program.naming(_FRACTION.name):
      chosen[name] = language_tasks.by_fraction(corpus, _FRACTION.value, seed)
  return chosen


def _total(recipe: Recipe, tasks: list[list[Task]], methods: int) -> int:
  """Steps that the whole run takes."""
  requests = sum(len(of_seed) for of_seed in tasks)
  trainings = len(tasks) + requests
  unlearning = requests * methods * recipe.unlearn_steps
  return trainings * recipe.steps + unlearning


if __name__ == "__main__":
  program.start(main)
