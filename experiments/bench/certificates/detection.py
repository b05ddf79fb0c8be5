"""Whether the best test between two releases finds more than was claimed."""

from collections.abc import Callable, Iterator

from experiments.bench.certificates import attack
from experiments.bench.certificates.worst import Instance, instances, terms
from experiments.run.tables import header, row, verdict

_CLAIMS = ((1.0, 1e-2), (3.0, 1e-2))
_FACTOR = 1.5  # that the epsilon found may be below the one claimed


def releases(seed: int, count: int, *, same: int) -> Iterator[str]:
  """The table of likelihood-ratio tests.

  Args:
    seed: of the noise.
    count: of releases on each side of a test.
    same: how many of them are compared bit by bit.
  """
  yield from header(
    [
      *("worst release against retraining's", "epsilon", "delta"),
      *(
        "bound / limit",
        "delta found",
        "at least",
        "epsilon found",
        "at least",
      ),
      *("same bits", ""),
    ]
  )
  for index, (name, make) in enumerate(instances().items()):
    instance = make()
    for epsilon, delta in _CLAIMS:
      seeds = [seed, 1, index, int(epsilon)]
      found = attack.audit(instance, epsilon, delta, count, seeds)
      release = terms(instance, instance.worst, epsilon, delta)
      equal = attack.same_releases(instance, epsilon, delta, same, seeds)
      passed = (
        equal
        and found.least_delta <= delta
        and found.least_epsilon <= epsilon <= _FACTOR * found.epsilon
      )
      yield row(
        [
          *(name, epsilon, delta),
          f"{release.measured.result / release.max_distance:.6f}",
          *_cells(found),
          *(f"{same} of {same}" if equal else "differ", verdict(passed)),
        ]
      )


def controls(seed: int, count: int) -> Iterator[str]:
  """The table of mechanisms that must be found out."""
  yield from header([
    "control, must be found above", "epsilon", "delta",
    "delta found", "at least", "epsilon found", "at least", "",
  ])  # fmt: skip
  broken: list[tuple[str, Callable[[], Instance], dict]] = [
    (f"{name}: half the noise", make, {"factor": 0.5})
    for name, make in instances().items()
  ]
  for name, make in instances().items():
    if name.startswith("consensus"):
      broken.append((f"{name}: a draw a row", make, {"norm": "joint"}))
  for index, (name, make, options) in enumerate(broken):
    instance = make()
    for epsilon, delta in _CLAIMS:
      seeds = [seed, 2, index, int(epsilon)]
      found = attack.audit(instance, epsilon, delta, count, seeds, **options)
      above = found.least_delta > delta and found.least_epsilon > epsilon
      yield row([name, epsilon, delta, *_cells(found), verdict(above)])


def separate_draws() -> Iterator[str]:
  """What a consensus with a draw a row is worth, exactly."""
  yield from header([
    "clients of a consensus", "epsilon claimed", "delta",
    "epsilon, one draw for all rows", "epsilon, a draw a row",
  ])  # fmt: skip
  for clients in (2, 4, 8, 16, 64):
    exact = (
      attack.epsilon_of_separate_draws(n, 1.0, 1e-5) for n in (1, clients)
    )
    yield row([clients, 1.0, 1e-5, *(f"{value:.4f}" for value in exact)])


def _cells(found: attack.Finding) -> tuple[str, ...]:
  return (
    f"{found.delta:.5f}",
    f"{found.least_delta:.5f}",
    f"{found.epsilon:.3f}",
    f"{found.least_epsilon:.3f}",
  )
