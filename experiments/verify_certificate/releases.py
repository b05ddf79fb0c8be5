"""What does not agree in one release of a run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.release import register
from experiments.release.names import Name
from experiments.release.register import Answer
from experiments.release.terms import Terms
from experiments.verify_certificate import independent_check
from experiments.verify_certificate.attempts import attempt, sentences
from junlearn import tree
from junlearn.certify import certificate as certificates
from junlearn.certify import ledger, scrutiny

CERTIFICATE, PARAMS = "certificate.json", "params.safetensors"


class Verifier:
  """Measures the releases of a run again, one after the other.

  Args:
    folder: of the run.
    experiment: that made it.
    terms: of its releases, by its flags.
    reader: of what it kept, see `release.reader.Reader`.
  """

  def __init__(self, folder: Path, experiment: str, terms: Terms, reader: Any):
    self._folder, self._experiment = folder, experiment
    self._terms, self._reader = terms, reader
    self._noises: list[np.ndarray] = []

  def problems(self, name: Name, entry: ledger.Entry | None) -> Iterator[str]:
    """What does not agree in a release, given the ledger's line of it."""
    place = self._folder / "releases" / str(name)
    text, problem = attempt(lambda: (place / CERTIFICATE).read_bytes().decode())
    stored, unread = attempt(lambda: certificates.from_json(text))
    if text is None or stored is None:
      yield f"{CERTIFICATE}: {problem or unread}"
      return
    for problem in sentences(lambda: certificates.disagreements(stored)):
      yield f"{CERTIFICATE}: {problem}"
    found, problem = attempt(lambda: self._again(name))
    if found is None:
      yield f"{CERTIFICATE}: {problem}"
      return
    answer, directions, again, line = found
    for problem in sentences(lambda: certificates.differences(stored, again)):
      yield f"{CERTIFICATE}: {problem}"
    if entry is not None:
      line["certificate"] = certificates.sha256(text)
      line |= {"distance": stored.distance, "sigma": stored.sigma}
      for field, value in line.items():
        if getattr(entry, field) != value:
          yield (
            f"{CERTIFICATE}: line {entry.index + 1} of the ledger has the "
            f"{field} {getattr(entry, field)!r}; it must be {value!r}."
          )
    for problem in sentences(lambda: self._noise(answer, again, directions)):
      yield f"{PARAMS}: {problem}"
    for problem in sentences(
      lambda: independent_check.problems(
        self._reader.plain(answer, directions),
        json.loads(text),
        entry._asdict() if entry else {},
      )
    ):
      yield f"{CERTIFICATE}: independently: {problem}"

  def pooled(self) -> list[str]:
    """What is wrong with the noise of all releases together."""
    return sentences(lambda: scrutiny.pooled(self._noises))

  def _again(self, name: Name):
    """The release, its certificate and its line, made anew."""
    answer, places = self._reader.answer(name)
    salt = (self._folder / register.SALT).read_bytes()
    again = register.certify(
      answer,
      self._terms,
      experiment=self._experiment,
      config=(self._folder / "config.json").read_bytes(),
      salt=salt,
    )
    line = register.line(again, answer, self._terms, salt)
    return answer, places, again, line

  def _noise(
    self, answer: Answer, again: certificates.Certificate, places: Any
  ) -> list[str]:
    """What is wrong with the noise, given that of the releases before."""
    options = {"sigma": again.sigma, "grid": again.grid, "norm": again.norm}
    view = answer.bound.view
    released, corrected = (
      view.split(params)[0] for params in (answer.released, answer.corrected)
    )
    clients = answer.bound.axes == 2 and answer.bound.norm == "joint"
    directions = {
      name: jax.tree.map(np.subtract, view.split(params)[0], corrected)
      for name, params in places.items()
    }
    found = list(
      scrutiny.disagreements(
        released,
        corrected,
        **options,
        rows=tree.size(released) if clients else None,
        others=self._noises,
        directions=directions,
      )
    )
    self._noises.append(scrutiny.standardized(released, corrected, **options))
    return found
