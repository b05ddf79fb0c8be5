"""TOFU: 200 invented authors, twenty questions and answers about each."""

import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from junlearn.data.builders import sources

_ENDINGS = (".json", ".jsonl", ".txt", ".json.gz", ".jsonl.gz", ".txt.gz")
_PER_AUTHOR = 20
_TEXTS = (
  "question",
  "answer",
  "paraphrased_question",
  "paraphrased_answer",
)


class Tofu(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Four sets of questions, and a fifth with answers that refuse.

  Forget and retain sets are slices of `full`, and smaller holdouts of the
  largest, so that their files are not needed. What the files of perturbed
  answers know about a row is stored with the row, found by its question and
  answer. Ids and authors count over all sets; an author of `real_authors` or
  `world_facts` is whatever one question asks for. The addresses have no known
  checksums.

  Source: P. Maini et al., "TOFU", arXiv 2401.06121; `holdout` is of a later
  version of the data.
  """

  name = "tofu"
  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = sources.MANUAL
  SOURCE = "https://huggingface.co/datasets/locuslab/TOFU/resolve/main/"
  REFUSALS_SOURCE = (
    "https://raw.githubusercontent.com/locuslab/tofu/"
    "8c49eee7da2b96b2b718c41c66f4e21331c89189/data/"
  )

  def _info(self) -> tfds.core.DatasetInfo:
    texts = {key: tfds.features.Text() for key in _TEXTS}
    features = {
      "id": tfds.features.Scalar(np.int64),
      "author": tfds.features.Scalar(np.int64),
      **texts,
      "perturbed_answers": tfds.features.Sequence(tfds.features.Text()),
    }
    return sources.LocalInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      homepage="https://huggingface.co/datasets/locuslab/TOFU",
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    names = (
      *("full", "forget10_perturbed", "retain_perturbed", "holdout10"),
      *("real_authors_perturbed", "world_facts_perturbed"),
    )
    urls = {name: f"{self.SOURCE}{name}.json" for name in names}
    urls["idontknow"] = f"{self.REFUSALS_SOURCE}idontknow.jsonl"
    paths = sources.fetch(dl_manager, self.name, urls, endings=_ENDINGS)
    found = {name: read(paths[name]) for name in names}
    _join(found["full"], found["forget10_perturbed"], "forget10_perturbed")
    _join(found["full"], found["retain_perturbed"], "retain_perturbed")
    splits = {
      "full": (found["full"], _PER_AUTHOR),
      "holdout": (found["holdout10"], _PER_AUTHOR),
      "real_authors": (found["real_authors_perturbed"], 1),
      "world_facts": (found["world_facts_perturbed"], 1),
      "refusals": (
        [
          {"question": "", "answer": line} for line in lines(paths["idontknow"])
        ],
        1,
      ),
    }
    generators, start, author = {}, 0, 0
    for name, (rows, per_author) in splits.items():
      if not rows or len(rows) % per_author:
        raise ValueError(
          f"tofu: {name} has {len(rows)} rows; it must be a multiple of "
          f"{per_author}, and not 0."
        )
      generators[name] = self._generate_examples(
        rows, start, author, per_author
      )
      start += len(rows)
      author += len(rows) // per_author
    return generators

  def _generate_examples(
    self, rows: list[dict], start: int, author: int, per_author: int
  ) -> Iterator:
    for i, row in enumerate(rows):
      texts = {key: row.get(key, "") for key in _TEXTS}
      yield (
        start + i,
        {
          "id": start + i,
          "author": author + i // per_author,
          **texts,
          "perturbed_answers": row.get("perturbed_answer", []),
        },
      )


def lines(path: str | os.PathLike) -> list[str]:
  """The lines of a text file, gzipped or not, that are not blank.

  Raises:
    ValueError: if it is damaged.
  """
  content = pathlib.Path(path).read_bytes()
  try:
    if content.startswith(b"\x1f\x8b"):  # the names of downloads may change
      content = gzip.decompress(content)
    text = content.decode("utf-8")
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise ValueError(
      f"{os.path.basename(path)} is not a whole text file: {error}."
    ) from error
  return [line for line in text.split("\n") if line.strip()]


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The rows of a file with one JSON object a line.

  Raises:
    ValueError: if a line is something else, or lacks a question or an answer.
  """
  rows = []
  for number, line in enumerate(lines(path), 1):
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      row = None
    if not isinstance(row, dict) or not (
      row.get("question") and row.get("answer")
    ):
      raise ValueError(
        f"{os.path.basename(path)}: line {number} is {line[:40]!r}; it must be "
        "a JSON object with a question and an answer."
      )
    rows.append(row)
  return rows


def _join(full, perturbed, name):
  """Adds to rows of `full` what `perturbed` knows about them."""
  rows = {(row["question"], row["answer"]): row for row in full}
  for row in perturbed:
    key = row["question"], row["answer"]
    if key not in rows:
      raise ValueError(
        f"tofu: {name} has the question {key[0]!r}, which with its answer must "
        "be one of full."
      )
    rows[key].update(row)
