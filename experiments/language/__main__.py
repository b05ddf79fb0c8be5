"""Makes a language model forget authors, and measures how well.

    python -m experiments.language --workdir=DIR

With no flags: fictitious authors, a tiny decoder trained from scratch, requests
for one author and for a tenth of them, LUNE against baselines, 3 seeds; DIR
holds the report. `--dataset=tofu` takes TOFU; `--model=FOLDER` a checkpoint and
tokenizer as the Hugging Face hub has them, which is then fine-tuned on the
data (see docs/language.md for the rest).
"""

from collections.abc import Sequence

from absl import flags

from experiments.language import corpora
from experiments.language.corpora import Source
from experiments.language.methods import METHODS, VIEWS, variants
from experiments.language.recipe import Checkpoint, Recipe
from experiments.language.study import Study
from experiments.language.tasks import Asked
from experiments.run import options, program, runner
from junlearn.nn.text import pretrained
from junlearn.parallel import sharding

_RUN = options.run(
  "runs/language",
  METHODS,
  ["lune", "ascent", "grad_difference", "npo", "simnpo", "idk", "rmu"],
)
_SOURCE = options.define(Source)
_CHECKPOINT = options.define(Checkpoint)
_ASKED = options.define(Asked)
_RECIPE = options.define(Recipe)
_VIEW = flags.DEFINE_list(
  "view",
  [],
  f"Params that methods train: {', '.join(VIEWS)}; by default each method's "
  "usual ones.",
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

flags.mark_flags_as_mutual_exclusive(
  [_ASKED.flags["forget_authors"], _ASKED.flags["forget_questions"]]
)
flags.adopt_module_key_flags(program)


def main(arguments: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  program.no_arguments(arguments)
  asked = _RUN.value
  program.choose(_VIEW.name, _VIEW.value, VIEWS)
  asked = asked._replace(method=variants(asked.method, _VIEW.value))
  rates = program.numbers(_LEARNING_RATES.name, METHODS)
  layout = start = max_length = None
  if _MESH.value is not None:
    with program.naming(_MESH.name):
      layout = sharding.Layout(sharding.mesh(_MESH.value))
  folder, dtype = _CHECKPOINT.value
  if folder is not None:
    with program.naming("model"):
      start = pretrained.load(folder, dtype=dtype, sharding=layout)
    max_length = start[0].max_length
  study = Study(
    corpora.load(_SOURCE.value, model=folder, max_length=max_length),
    _RECIPE.value,
    asked=_ASKED.value,
    rates=rates,
    start=start,
    layout=layout,
  )
  study.check(asked.method)
  print(runner.run(study, asked, every=5))


if __name__ == "__main__":
  program.start(main)
