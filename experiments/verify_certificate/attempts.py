"""Checks of what may be anything: they end in sentences, whatever it is."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def attempt(function: Callable[[], Any]) -> tuple[Any, str]:
  """What a function returns, or None and what was wrong.

  The folder may hold anything, so that anything may go wrong in reading it.
  """
  try:
    with np.errstate(all="ignore"):
      return function(), ""
  except (ValueError, OSError, ArithmeticError) as error:
    return None, " ".join(str(error).split()) or type(error).__name__
  except Exception as error:
    return None, f"cannot be verified ({type(error).__name__}: {error})."


def sentences(check: Callable[[], Iterator[str]]) -> list[str]:
  """The sentences of a check, or the one why it cannot be made."""
  found, problem = attempt(lambda: list(check()))
  return [problem] if found is None else found
