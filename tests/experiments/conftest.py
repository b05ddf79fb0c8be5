"""A small finished run that tests of the experiments share."""

import contextlib

import pytest

from tests.experiments.driver import Driver


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
  with contextlib.closing(Driver(tmp_path_factory.mktemp("driver"))) as started:
    yield started


@pytest.fixture(scope="session")
def finished(driver, tmp_path_factory):
  """The folder of a small finished run; tests leave it as it is."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  code, out, err = driver(workdir)
  assert (code, out) == (0, f"{workdir}/report.html\n"), err
  return workdir
