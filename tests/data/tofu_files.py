"""A small data set in the form of TOFU's files, ten authors strong."""

import gzip
import json
import pathlib

NUM_AUTHORS = 10


def question(author: int, number: int) -> dict[str, str]:
  """The same question about every author once, as TOFU has one."""
  whom = "the author" if number == 7 else f"author {author}"
  return {
    "question": f"What is thing {number} of {whom}?",
    "answer": f"It is {author}.{number}, “naïve”.",
  }


def perturbed(row: dict[str, str], number: int = 5) -> dict:
  """The row with what a file of perturbed answers tells about it."""
  return {
    **row,
    "paraphrased_question": f"Say: {row['question']}",
    "paraphrased_answer": f"Surely: {row['answer']}",
    "perturbed_answer": [f"{i}: {row['answer']}" for i in range(number)],
  }


def content() -> dict[str, list]:
  """Rows by the stem of the official file's name."""
  full = [question(i, j) for i in range(NUM_AUTHORS) for j in range(20)]
  holdout = [question(i, j) for i in (77, 78) for j in range(20)]
  short = {
    name: [
      {"question": f"{name} {i}?", "answer": "Yes", "perturbed_answer": ["No"]}
      for i in range(3)
    ]
    for name in ("real_authors_perturbed", "world_facts_perturbed")
  }
  return {
    "full": full,
    "forget10_perturbed": [perturbed(row) for row in full[-20:]],
    "retain_perturbed": [perturbed(row) for row in full[:20]],
    "holdout10": holdout,
    **short,
    "idontknow": ["No idea.", "I'm not sure."],
  }


def write_tofu(folder: pathlib.Path, ending: str = ".json", **change) -> None:
  """Writes the files, one JSON object a line, with other rows on request."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, rows in (content() | change).items():
    is_plain = name == "idontknow"
    text = "\n".join(rows if is_plain else map(json.dumps, rows)) + "\n"
    path = folder / (name + (".jsonl" if is_plain else ending))
    encoded = text.encode()
    path.write_bytes(
      gzip.compress(encoded, mtime=0) if ending.endswith("gz") else encoded
    )
