"""TOFU's questions and answers as records."""

import os
from collections.abc import Mapping

from junlearn.data import builders
from junlearn.data.builders.prepare import prepared, rows
from junlearn.data.text.encoding import QA

# The stored set of each split, and its first and last row in per cent.
SPLITS: Mapping[str, tuple[str, int, int]] = {
  "full": ("full", 0, 100),
  "retain99": ("full", 0, 99),
  "retain95": ("full", 0, 95),
  "retain90": ("full", 0, 90),
  "forget01": ("full", 99, 100),
  "forget05": ("full", 95, 100),
  "forget10": ("full", 90, 100),
  "retain_perturbed": ("full", 0, 10),
  "holdout10": ("holdout", 0, 100),
  "holdout05": ("holdout", 0, 50),
  "holdout01": ("holdout", 0, 10),
  "real_authors": ("real_authors", 0, 100),
  "world_facts": ("world_facts", 0, 100),
}


def load(
  split: str,
  *,
  data_dir: str | os.PathLike,
  manual_dir: str | os.PathLike | None = None,
) -> list[QA]:
  """A split of TOFU, in the official order.

  Args:
    split: one of `SPLITS`. Rows of forget10, of retain_perturbed, of
      real_authors and of world_facts have perturbed answers.
    data_dir: folder of the prepared sets; made if need be.
    manual_dir: folder with the official files, or copies of them that end in
      .json, .jsonl or .txt, with .gz or not; None downloads them. It is not
      read again once the set is prepared.

  Returns:
    Records whose `id` is the row in `full` where they are of it, with further
    numbers for others; `author` is `id // 20` there, and `fact` is `id`.

  Raises:
    ValueError: if there is no such split, or a file is damaged.
    FileNotFoundError: if the official files are not there or cannot be
      downloaded.
  """
  if split not in SPLITS:
    raise ValueError(
      f"split is {split!r}; it must be one of {', '.join(SPLITS)}."
    )
  stored, first, last = SPLITS[split]
  found = _read(stored, data_dir, manual_dir)
  n = len(found)
  return [
    QA(
      id=int(row["id"]),
      author=int(row["author"]),
      fact=int(row["id"]),
      kind="",
      question=_text(row["question"]),
      answer=_text(row["answer"]),
      paraphrased_question=_text(row["paraphrased_question"]),
      paraphrased_answer=_text(row["paraphrased_answer"]),
      perturbed_answers=tuple(map(_text, row["perturbed_answers"])),
    )
    for row in found[n * first // 100 : n * last // 100]
  ]


def refusals(
  *,
  data_dir: str | os.PathLike,
  manual_dir: str | os.PathLike | None = None,
) -> list[str]:
  """TOFU's hundred ways to say that one does not know; see `load`."""
  found = _read("refusals", data_dir, manual_dir)
  return [_text(row["answer"]) for row in found]


def _read(stored, data_dir, manual_dir):
  """Rows of a stored set; preparation has shuffled them."""
  builder = prepared(builders.Tofu, data_dir, manual_dir)
  return sorted(rows("tofu", builder, stored), key=lambda row: row["id"])


def _text(value):
  return value.decode("utf-8")
