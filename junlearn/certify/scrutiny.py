"""Whether a released model carries the noise that its certificate claims.

Whoever has the params before the noise (`corrected`) can subtract them:

    z = (released - [corrected]) / sigma,   [.] the nearest multiples of `grid`,

which must look like independent standard normal numbers. Each test below has
the significance 1e-9, so that honest runs of some hundreds of tests do not fail
in practice. `disagreements` finds

  * what cannot be a release: NaN, numbers off the grid (low digits of the
    original), a consensus whose rows differ (rows without noise);
  * another size of the noise, of all of it, a leaf, a client, or a slice, such
    as those of one class or feature (chi-squared, both ways), or of one number;
  * another law (Kolmogorov-Smirnov, Anderson-Darling), and numbers that are 0
    or repeat more than the grid explains: no noise, +-sigma, copies, coarse
    floats;
  * an offset of any of these parts, and a shift along given directions, such as
    back to the original;
  * noise of another release used again, negated, scaled, or handed to another
    client, and clients who share noise.

What one release cannot show, n being the numbers of its noise: a scale between
`1 - 4.3 / sqrt(n)` and `1 + 4.3 / sqrt(n)` (noticed half of the time at these
ends, 999 times in 1000 at `1 -+ 6.5 / sqrt(n)`; 0.94 and 0.91 for 5,200
numbers), which `pooled` narrows over the releases of a run; a shift below about
6.1 sigma along a given direction, or below `2.9 n^(1/4)` sigma (25 for 5,200
numbers) along one that nobody foresaw; where the noise came from, and who else
knows it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special, stats

from junlearn import tree, validate
from junlearn.certify.noise import Norm
from junlearn.typing import Params

Noise = dict[str, np.ndarray]

# How often one test fails an honest release.
SIGNIFICANCE = 1e-9
# Multiples of the grid beyond are not all doubles: the low digits are gone.
_EXACT = 2.0**53


def standardized(
  released: Params, corrected: Params, *, sigma: float, grid: float, norm: Norm
) -> Noise:
  """The noise of a release in standard deviations, by the names of leaves.

  Args:
    released: finite params with noise.
    corrected: the same before it.
    sigma: standard deviation of the noise, above 0.
    grid: the power of two that released parameters are multiples of.
    norm: "joint", or "row" for the noise of the first row, `[1, ...]`.

  Returns:
    Standard normal numbers of an honest release, in the leaves' shapes.

  Raises:
    ValueError: if an argument is out of range, or the shapes differ.
  """
  _check_noise(sigma, grid, norm)
  released, corrected = _leaves(released), _leaves(corrected)
  for problem in _shapes(released, corrected, norm):
    raise ValueError(problem)
  first = slice(1) if norm == "row" else ...
  return {
    name: (leaf - np.round(corrected[name] / grid) * grid)[first] / sigma
    for name, leaf in released.items()
  }


def disagreements(
  released: Params,
  corrected: Params,
  *,
  sigma: float,
  grid: float,
  norm: Norm,
  rows: int | None = None,
  others: Sequence[Noise] = (),
  directions: Mapping[str, Any] | None = None,
) -> Iterator[str]:
  """Every test that a release fails; see above for what they find.

  Args:
    released: params with noise, float64.
    corrected: the same before it.
    sigma: standard deviation of the noise, above 0.
    grid: the power of two that released parameters are multiples of.
    norm: "joint" for independent noise on all parameters, "row" for one draw
      that all rows of axis 0 share.
    rows: clients on axis 0 of all leaves, each looked at by itself; None where
      there are none, or with the norm "row".
    others: `standardized` noise of the run's other releases.
    directions: by name, params along which nothing may have moved, such as
      `original - corrected`; under the norm "row" each row is one.

  Yields:
    A sentence for each test that fails.

  Raises:
    ValueError: if an argument is out of range, or a direction or `rows` does
      not fit the params.
  """
  _check_noise(sigma, grid, norm)
  values, before = _leaves(released), _leaves(corrected)
  for check in (
    _shapes(values, before, norm),
    _finite("released", values),
    _finite("corrected", before),
  ):
    problems = list(check)
    yield from problems
    if problems:
      return
  yield from _lattice(values, grid)
  if norm == "row":
    yield from _equal_rows(values)
  z = standardized(released, corrected, sigma=sigma, grid=grid, norm=norm)
  rows = 1 if norm == "row" else rows
  own = _by_row(z, rows)
  groups = {"all numbers": _flat(z)}
  groups |= {f"the leaf {name!r}": leaf.ravel() for name, leaf in z.items()}
  if len(own) > 1:
    groups |= {f"row {i}": row for i, row in enumerate(own)}
  for where, group in groups.items():
    yield from _sentences(where, _sample(group))
  for name, leaf in z.items():
    yield from _sentences(f"the leaf {name!r}", _slices(leaf))
  yield from _sentences("all numbers", _repetition(_flat(z), grid / sigma))
  for name, direction in (directions or {}).items():
    along = _direction(name, direction, values=values, rows=rows)
    where = f"the direction {name!r}"
    yield from _sentences(where, _along(own, along, matched=norm != "row"))
  if len(own) > 1:
    yield from _sentences("pairs of rows", _pairs(own))
  for number, other in enumerate(others):
    where = f"the noise of other release {number}"
    yield from _sentences(where, _reuse(z, other, rows))


def pooled(vectors: Sequence[Noise]) -> Iterator[str]:
  """The tests of size, mean and law over all releases of a run together.

  Args:
    vectors: `standardized` noise of each.

  Yields:
    A sentence for each test that fails.
  """
  if vectors:
    joined = np.concatenate([_flat(z) for z in vectors])
    yield from _sentences(f"{len(vectors)} releases together", _sample(joined))


def _sentences(where, tests) -> Iterator[str]:
  for what, probability in tests:
    if not probability >= SIGNIFICANCE:
      yield (
        f"noise of {where}: {what}, which honest noise does with probability "
        f"{probability:.1e} at most."
      )


def _shapes(released, corrected, norm) -> Iterator[str]:
  if list(released) != list(corrected):
    yield (
      f"released has the leaves {', '.join(released)}; it must have those of "
      f"corrected, {', '.join(corrected)}."
    )
    return
  for name, leaf in released.items():
    other = corrected[name]
    for dtype in {leaf.dtype, other.dtype} - {np.dtype(np.float64)}:
      yield f"the leaf {name!r} is of dtype {dtype}; it must be float64."
    if leaf.shape != other.shape:
      yield (
        f"the leaf {name!r} of released has shape {leaf.shape}; it must be "
        f"{other.shape}, that of corrected."
      )
    if norm == "row" and not leaf.shape:
      yield f"the leaf {name!r} is a scalar; norm 'row' needs [rows, ...]."


def _finite(what, values) -> Iterator[str]:
  for name, leaf in values.items():
    if not np.isfinite(leaf).all():
      yield f"the leaf {name!r} of {what} has NaN or infinite numbers."


def _lattice(values, grid) -> Iterator[str]:
  for name, leaf in values.items():
    off = (np.remainder(leaf, grid) != 0) | (np.abs(leaf) > _EXACT * grid)
    if off.any():
      yield (
        f"the leaf {name!r} of released has {np.count_nonzero(off)} numbers "
        f"that are no exact multiples of the grid {grid!r}."
      )


def _equal_rows(values) -> Iterator[str]:
  for name, leaf in values.items():
    apart = np.count_nonzero((leaf != leaf[:1]).reshape(len(leaf), -1).any(1))
    if apart:
      yield (
        f"{apart} rows of the leaf {name!r} of released differ from the first; "
        "a consensus must have equal rows."
      )


def _sample(z):
  """Size, mean and law of independent normal numbers; all exact but one."""
  n = z.size
  if not n:
    return
  square = float(z @ z)
  yield f"its size is {math.sqrt(square / n):.4g} sigma", _size(square, n)
  mean = float(z.mean())
  yield f"its mean is {mean:.4g} sigma", _two_sided(mean * math.sqrt(n))
  largest = float(np.abs(z).max())
  one = f"its largest number is {largest:.4g} sigma"
  yield one, n * _two_sided(largest)
  ordered = np.sort(z)
  # sup |empirical - normal|, whose law is known for every n.
  below = special.ndtr(ordered) - np.arange(n) / n
  gap = float(max(below.max(), (1 / n - below).max()))
  law = f"its distribution is {gap:.3g} away from the normal one"
  yield law, float(stats.kstwo.sf(gap, n))
  weight = 2 * np.arange(1, n + 1) - 1
  tails = special.log_ndtr(ordered) + special.log_ndtr(-ordered[::-1])
  squared = -n - float(weight @ tails) / n
  # The tail of the limit, sum_j chi2_j / (j (j + 1)), is that of its first
  # term times prod_{j > 1} (1 - 2 / (j (j + 1)))^(-1/2) = sqrt 3. Few numbers
  # have a heavier one, by less than 4.
  chance = 4 * math.sqrt(3) * math.erfc(math.sqrt(max(squared, 0.0)))
  yield f"its Anderson-Darling statistic is {squared:.4g}", chance


def _slices(leaf):
  """Size and mean of all that share one index, such as a class's numbers."""
  for axis, length in enumerate(leaf.shape):
    parts = np.moveaxis(leaf, axis, 0).reshape(length, -1)
    if 1 in parts.shape or 0 in parts.shape:
      continue
    n = parts.shape[1]
    size = float(np.min(_size(np.sum(parts**2, 1), n)))
    yield f"a slice of axis {axis} has another size than sigma", length * size
    mean = math.sqrt(n) * float(np.abs(parts.mean(1)).max())
    yield f"a slice of axis {axis} has an offset", length * _two_sided(mean)


def _repetition(z, step):
  """How often numbers are 0, or equal, on a grid of `step` sigma."""
  zeros = z.size - np.count_nonzero(z)
  chance = stats.binom.sf(zeros - 1, z.size, math.erf(step / math.sqrt(8)))
  yield f"{zeros} numbers are 0", float(chance)
  repeats = z.size - np.unique(z).size
  what = f"{repeats} numbers occur again"
  yield what, _repeats_tail(z.size, repeats, step)


def _repeats_tail(n, repeats, step):
  """Chernoff's bound on `P(n - distinct values >= repeats)`.

  `n - distinct` is a sum over cells of `max(count - 1, 0)`. The counts are
  negatively associated and each is below a Poisson number in convex order, so
  the bound for independent Poisson counts holds.
  """
  x = np.linspace(-9, 9, 721)
  expected = n * step * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
  # Beyond, exp(expected exp(t)) overflows.
  t = np.linspace(0, max(math.log(100 / expected.max()), 1e-3), 200)[:, None]
  growth = np.expm1(expected * np.exp(t)) * np.exp(-t)
  cells = np.trapezoid(np.log1p(growth) - expected, x, axis=1) / step
  return math.exp(min(float(np.min(cells - t[:, 0] * repeats)), 0.0))


def _direction(name, direction, *, values, rows):
  """A direction as `[rows, n]`, in which only its own rows count."""
  leaves = _leaves(direction)
  if {k: v.shape for k, v in leaves.items()} != {
    k: v.shape for k, v in values.items()
  }:
    raise ValueError(
      f"directions has {name!r} of another structure; it must be that of "
      "released."
    )
  if not all(np.isfinite(leaf).all() for leaf in leaves.values()):
    raise ValueError(f"directions has NaN or infinite numbers in {name!r}.")
  return _by_row(leaves, None if rows is None else tree.size(leaves))


def _along(own, along, *, matched):
  """Projections `<z, d> / |d|`, which are standard normal.

  Together, and of each row: its own where matched, else all of the one draw.
  """
  together = along if matched else along.sum(0, keepdims=True)
  whole = _score(np.vdot(own, together), np.linalg.norm(together))
  yield f"it goes {whole:.4g} sigma along it", _two_sided(whole)
  inner = np.einsum("ij,ij->i", np.broadcast_to(own, along.shape), along)
  most = float(np.max(_score(np.abs(inner), np.linalg.norm(along, axis=1))))
  one = f"a row goes {most:.4g} sigma along its part"
  yield one, len(along) * _two_sided(most)


def _pairs(own):
  """Correlation of every two rows."""
  inner = np.abs(own @ own.T)
  scores = np.triu(_score(inner, np.linalg.norm(own, axis=1)), 1)
  number = len(own) * (len(own) - 1) // 2
  most = float(scores.max())
  what = f"two rows have the correlation {most:.4g} / sqrt({own.shape[1]})"
  yield what, number * _two_sided(most)


def _reuse(z, other, rows):
  """Projections of this noise on another's: all, every row, every leaf."""
  theirs = {name: np.asarray(leaf) for name, leaf in other.items()}
  a = _by_row(z, rows)
  b = _by_row(theirs, None if rows is None else tree.size(theirs))
  if a.shape[1] == b.shape[1]:
    if a.shape == b.shape:
      whole = _score(np.vdot(a, b), np.linalg.norm(b))
      yield f"this noise goes {whole:.4g} sigma along it", _two_sided(whole)
    scores = _score(np.abs(a @ b.T), np.linalg.norm(b, axis=1))
    most = float(scores.max())
    what = f"a row of this noise goes {most:.4g} sigma along a row of it"
    yield what, scores.size * _two_sided(most)
  for name in z.keys() & theirs.keys():
    if z[name].shape == theirs[name].shape:
      length = np.linalg.norm(theirs[name])
      score = _score(np.vdot(z[name], theirs[name]), length)
      what = f"the leaf {name!r} goes {score:.4g} sigma along it"
      yield what, _two_sided(score)


def _score(inner, length):
  """`inner / length`, 0 along what is nothing."""
  return inner / np.where(length > 0, length, np.inf)


def _size(square, n):
  """Two-sided chi-squared test."""
  return 2 * np.minimum(special.chdtr(n, square), special.chdtrc(n, square))


def _two_sided(score):
  return math.erfc(abs(float(score)) / math.sqrt(2))


def _leaves(params) -> Noise:
  flat = jax.tree_util.tree_flatten_with_path(params)[0]
  return {tree.path_name(path): np.asarray(leaf) for path, leaf in flat}


def _flat(leaves):
  return np.concatenate([leaf.ravel() for leaf in leaves.values()])


def _by_row(leaves, rows):
  """`[rows, n]` with all leaves side by side; one row for None."""
  if rows is None:
    return _flat(leaves)[None]
  for name, leaf in leaves.items():
    if leaf.shape[:1] != (rows,):
      raise ValueError(
        f"rows is {rows}; the leaf {name!r} has shape {leaf.shape}, and all "
        "leaves must have so many rows."
      )
  return np.concatenate([x.reshape(rows, -1) for x in leaves.values()], 1)


def _check_noise(sigma, grid, norm):
  validate.positive(sigma=sigma, grid=grid)
  validate.one_of(("joint", "row"), norm=norm)
