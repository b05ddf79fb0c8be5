import math

import jax
import numpy as np
import pytest
from scipy import stats

from junlearn.certify import noise, scrutiny

SIGMA, GRID = 0.011, 2.0**-27  # 2^20 <= SIGMA / GRID < 2^21
ROWS = 10
SHAPES = {
  "clients": ({"kernel": (ROWS, 51, 10), "bias": (ROWS, 10)}, "joint", ROWS),
  "consensus": ({"kernel": (ROWS, 51, 10), "bias": (ROWS, 10)}, "row", None),
  "one model": ({"kernel": (7, 3), "bias": (3,), "scale": ()}, "joint", None),
  "few numbers": ({"w": (2, 2)}, "joint", 2),
  "many": ({"w": (4, 100, 100)}, "joint", 4),
}


def drawn(rng, shapes):
  return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def corrected_of(rng, kind):
  shapes, norm, _ = SHAPES[kind]
  params = drawn(rng, shapes)
  if norm == "row":
    params = {k: np.repeat(v[:1], len(v), 0) for k, v in params.items()}
  return params


def draws(rng, kind):
  """Honest noise in standard deviations, one row for all where norm is so."""
  shapes, norm, _ = SHAPES[kind]
  if norm == "row":
    shapes = {k: (1, *shape[1:]) for k, shape in shapes.items()}
  return drawn(rng, shapes)


def release(corrected, z):
  """The mechanism: params and noise are rounded, then added."""
  return {
    k: (np.rint(leaf / GRID) + np.rint(z[k] * SIGMA / GRID)) * GRID
    for k, leaf in corrected.items()
  }


def problems(released, corrected, kind="clients", **options):
  _, norm, rows = SHAPES[kind]
  options = {"rows": rows, **options}
  return list(
    scrutiny.disagreements(
      released, corrected, sigma=SIGMA, grid=GRID, norm=norm, **options
    )
  )


def vector(released, corrected, kind="clients"):
  return scrutiny.standardized(
    released, corrected, sigma=SIGMA, grid=GRID, norm=SHAPES[kind][1]
  )


def honest_runs(kind, seeds):
  """The problems of each of many runs, with other releases and a direction."""
  for seed in range(seeds):
    rng = np.random.default_rng(seed)
    corrected = corrected_of(rng, kind)
    others = []
    for _ in range(2):
      released = release(corrected, draws(rng, kind))
      others.append(vector(released, corrected, kind))
    released = release(corrected, draws(rng, kind))
    away = drawn(rng, SHAPES[kind][0])
    found = problems(
      released, corrected, kind, others=others, directions={"away": away}
    )
    yield found, [*others, vector(released, corrected, kind)]


@pytest.mark.parametrize(
  ("kind", "seeds"),
  [
    ("clients", 300),
    ("consensus", 300),
    ("one model", 300),
    ("few numbers", 300),
    ("many", 20),
  ],
)
def test_honest_noise_has_no_problem(kind, seeds):
  for found, vectors in honest_runs(kind, seeds):
    assert found == []
    assert list(scrutiny.pooled(vectors)) == []


def test_the_noise_of_the_library_has_no_problem(x64):
  corrected = jax.tree.map(
    jax.numpy.asarray, corrected_of(np.random.default_rng(0), "clients")
  )
  step = noise.grid(SIGMA)
  assert step == GRID
  released = noise.add(corrected, sigma=SIGMA, step=step, norm="joint")
  assert problems(released, corrected) == []


@pytest.mark.parametrize("kind", ["clients", "consensus", "one model"])
def test_each_test_fails_as_rarely_as_it_says(kind, monkeypatch):
  level, seeds = 2e-3, 400
  monkeypatch.setattr(scrutiny, "SIGNIFICANCE", level)
  counts = {}
  for found, _ in honest_runs(kind, seeds):
    for problem in found:
      name = "".join(
        c for c in problem.split(",")[0] if c.isalpha() or c == " "
      )
      counts[name] = counts.get(name, 0) + 1
  # Sentences of one form are of at most 24 tests a run: rows, leaves, slices.
  most = stats.binom.isf(1e-6, 24 * seeds, level)
  assert counts, "a level of 2e-3 must be passed now and then"
  assert max(counts.values()) <= most, counts
  # The tests of size and mean are exact: they fail as often as they say.
  exact = sum(n for name, n in counts.items() if "its mean" in name)
  groups = {"clients": 13, "consensus": 3, "one model": 4}[kind]
  assert stats.binom.cdf(exact, groups * seeds, level) > 1e-6


@pytest.fixture
def rng():
  return np.random.default_rng(7)


@pytest.fixture
def corrected(rng):
  return corrected_of(rng, "clients")


@pytest.fixture
def z(rng):
  return draws(rng, "clients")


def assert_found(found, part):
  assert any(part in problem for problem in found), found


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.97, 1.02])
def test_noise_of_another_release(corrected, z, rng, factor):
  other = vector(release(corrected, z), corrected)
  scaled = {k: factor * leaf for k, leaf in z.items()}
  found = problems(
    release(corrected, scaled),
    corrected,
    others=[
      vector(release(corrected, draws(rng, "clients")), corrected),
      other,
    ],
  )
  assert_found(found, "noise of the noise of other release 1: this noise goes")
  assert not any("other release 0" in problem for problem in found)


def test_a_row_of_another_release_given_to_another_client(corrected, z, rng):
  other = vector(release(corrected, z), corrected)
  forged = draws(rng, "clients")
  for name, leaf in forged.items():
    leaf[3] = -z[name][8]
  found = problems(release(corrected, forged), corrected, others=[other])
  (problem,) = found
  assert "a row of this noise goes" in problem


def test_a_row_of_the_noise_of_a_consensus(corrected, rng):
  common = corrected_of(rng, "consensus")
  consensus = draws(rng, "consensus")
  other = vector(release(common, consensus), common, "consensus")
  forged = draws(rng, "clients")
  for name, leaf in forged.items():
    leaf[2] = consensus[name][0]
  found = problems(release(corrected, forged), corrected, others=[other])
  (problem,) = found
  assert "a row of this noise goes" in problem


def test_one_leaf_of_another_release_whose_other_leaves_differ(rng):
  shapes = {"kernel": (7, 30), "bias": (40,)}
  corrected, z, forged = (drawn(rng, shapes) for _ in range(3))
  forged["kernel"] = z["kernel"]
  other = vector(release(corrected, z), corrected, "one model")
  other["bias"] = other["bias"][:20]
  found = problems(
    release(corrected, forged), corrected, "one model", others=[other]
  )
  (problem,) = found
  assert "the leaf 'kernel' goes" in problem


def test_two_clients_that_share_noise(corrected, z):
  for leaf in z.values():
    leaf[6] = leaf[1]
  found = problems(release(corrected, z), corrected)
  assert_found(found, "noise of pairs of rows: two rows have the correlation")
  assert_found(found, "numbers occur again")


def test_all_in_one_number(corrected, z):
  size = math.sqrt(sum(np.sum(leaf**2) for leaf in z.values()))
  forged = {k: np.zeros_like(leaf) for k, leaf in z.items()}
  forged["kernel"][0, 0, 0] = size  # the right norm
  found = problems(release(corrected, forged), corrected)
  assert_found(found, "noise of all numbers: its largest number is 71")
  assert_found(found, "noise of row 4: its size is 0 sigma")
  assert_found(found, "noise of all numbers: 5199 numbers are 0")


def test_a_constant_offset(corrected, z):
  forged = {k: leaf + 0.15 for k, leaf in z.items()}
  found = problems(release(corrected, forged), corrected)
  assert_found(found, "noise of all numbers: its mean is 0.1")


def test_an_offset_of_one_class(corrected, z):
  z["kernel"][..., 4] += 0.4
  found = problems(release(corrected, z), corrected)
  assert_found(found, "a slice of axis 2 has an offset")


@pytest.mark.parametrize("kind", ["clients", "consensus"])
def test_noise_around_the_original(rng, kind):
  corrected = corrected_of(rng, kind)
  away = draws(rng, kind)
  length = math.sqrt(sum(np.sum(leaf**2) for leaf in away.values()))
  original = {
    k: leaf + 15 * SIGMA / length * away[k] for k, leaf in corrected.items()
  }
  back = {k: original[k] - corrected[k] for k in original}
  released = release(original, draws(rng, kind))
  found = problems(released, corrected, kind, directions={"original": back})
  assert_found(found, "noise of the direction 'original': it goes 1")
  if kind == "clients":  # honest noise else; 520 numbers are longer by it
    assert all("'original'" in problem for problem in found)


def test_one_client_goes_back_to_the_original(corrected, z, rng):
  back = drawn(rng, SHAPES["clients"][0])
  for name, leaf in z.items():
    leaf[5] += 0.45 * back[name][5]
  found = problems(
    release(corrected, z), corrected, directions={"original": back}
  )
  (problem,) = found
  assert "a row goes" in problem


def test_rows_of_a_consensus_without_noise(rng):
  corrected = corrected_of(rng, "consensus")
  released = release(corrected, draws(rng, "consensus"))
  exact = release(corrected, {k: 0 * v for k, v in corrected.items()})
  for name, leaf in released.items():
    leaf[1:4] = exact[name][1:4]
  found = problems(released, corrected, "consensus")
  assert len(found) == 2
  assert_found(found, "3 rows of the leaf 'kernel' of released differ")


def test_one_number_of_a_consensus_differs(rng):
  corrected = corrected_of(rng, "consensus")
  released = release(corrected, draws(rng, "consensus"))
  released["bias"][9, 9] += GRID
  (problem,) = problems(released, corrected, "consensus")
  assert problem.startswith("1 rows of the leaf 'bias' of released differ")


@pytest.mark.parametrize("factor", [0.01, 0.85, 1.15, 200.0])
def test_another_scale(corrected, z, factor):
  scaled = {k: factor * leaf for k, leaf in z.items()}
  found = problems(release(corrected, scaled), corrected)
  assert_found(found, "noise of all numbers: its size is")


@pytest.mark.parametrize(
  ("scale", "least", "most"),
  [(0.93, 0.75, 0.95), (1 - 4.3 / math.sqrt(5200), 0.35, 0.65), (0.91, 1, 1)],
)
def test_the_smallest_scale_that_is_noticed(corrected, scale, least, most):
  """5,200 numbers; the docstring says how often each of these is noticed."""
  noticed = 0
  for seed in range(100):
    z = draws(np.random.default_rng(seed), "clients")
    forged = release(corrected, {k: scale * v for k, v in z.items()})
    found = problems(forged, corrected)
    noticed += any("all numbers: its size" in problem for problem in found)
  assert least <= noticed / 100 <= most


@pytest.mark.parametrize(
  ("length", "what"), [(2.94 * 5200**0.25, "all numbers: its size"), (6.1, "d")]
)
def test_the_smallest_shift_that_is_noticed(corrected, length, what):
  """Of unforeseen direction and along a given one: about half of the time."""
  noticed = 0
  for seed in range(100):
    rng = np.random.default_rng(seed)
    z, away = draws(rng, "clients"), draws(rng, "clients")
    unit = length / math.sqrt(sum(np.sum(leaf**2) for leaf in away.values()))
    forged = release(corrected, {k: v + unit * away[k] for k, v in z.items()})
    foreseen = {"directions": {"d": away}} if what == "d" else {}
    part = "the direction 'd': it goes" if what == "d" else what
    found = problems(forged, corrected, **foreseen)
    noticed += any(part in problem for problem in found)
  assert 0.35 <= noticed / 100 <= 0.65


def test_a_scale_that_only_all_releases_together_show(corrected, rng):
  vectors = []
  for _ in range(8):
    z = {k: 0.97 * v for k, v in draws(rng, "clients").items()}
    released = release(corrected, z)
    assert problems(released, corrected) == []
    vectors.append(vector(released, corrected))
  (problem,) = scrutiny.pooled(vectors)
  assert problem.startswith("noise of 8 releases together: its size is 0.9")
  assert list(scrutiny.pooled([])) == []


def test_uniform_noise_of_the_right_size(corrected, rng):
  edge = math.sqrt(3)
  z = {
    k: rng.uniform(-edge, edge, size=leaf.shape)
    for k, leaf in corrected.items()
  }
  found = problems(release(corrected, z), corrected)
  assert_found(found, "noise of all numbers: its distribution is")
  assert_found(found, "noise of the leaf 'kernel': its Anderson-Darling")


def test_plus_minus_sigma(corrected, z):
  forged = {k: np.sign(leaf) for k, leaf in z.items()}
  found = problems(release(corrected, forged), corrected)
  assert_found(found, "5198 numbers occur again")


def test_half_of_the_numbers_are_the_other_half_in_another_order(rng):
  corrected = {"w": rng.normal(size=(2, 100))}
  half = rng.normal(size=100)
  z = {"w": np.stack([half, rng.permutation(half)])}
  found = problems(release(corrected, z), corrected, "few numbers")
  (problem,) = found
  assert "100 numbers occur again" in problem


def test_coarse_random_numbers(corrected, z):
  forged = {k: leaf.astype(np.float16).astype(float) for k, leaf in z.items()}
  (problem,) = problems(release(corrected, forged), corrected)
  assert "numbers occur again" in problem


def test_three_numbers_without_noise(corrected, z):
  z["bias"].flat[[3, 20, 70]] = 0
  (problem,) = problems(release(corrected, z), corrected)
  assert "all numbers: 3 numbers are 0" in problem


def test_numbers_off_the_grid(corrected, z):
  low_digits = {k: leaf + SIGMA * z[k] for k, leaf in corrected.items()}
  assert_found(
    problems(low_digits, corrected), "no exact multiples of the grid"
  )
  released = release(corrected, z)
  released["bias"][0, 0] += GRID / 2
  (problem,) = problems(released, corrected)
  assert "'bias' of released has 1 numbers that are no exact" in problem


def test_numbers_too_large_for_the_grid(corrected, z):
  corrected["bias"][:] = 2.0**54 * GRID
  found = problems(release(corrected, z), corrected)
  assert_found(found, "'bias' of released has 100 numbers that are no exact")


@pytest.mark.parametrize("what", ["row", "leaf", "feature"])
def test_a_part_without_noise(corrected, z, what):
  if what == "row":
    for leaf in z.values():
      leaf[3] = 0
  elif what == "leaf":
    z["bias"][:] = 0
  else:
    z["kernel"][:, 17] = 0
  expected = {
    "row": "noise of row 3: its size is 0 sigma",
    "leaf": "noise of the leaf 'bias': its size is 0 sigma",
    "feature": "noise of the leaf 'kernel': a slice of axis 1",
  }
  assert_found(problems(release(corrected, z), corrected), expected[what])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["released", "corrected"])
def test_not_finite(corrected, z, value, where):
  released = release(corrected, z)
  {"released": released, "corrected": corrected}[where]["bias"][0, 0] = value
  (problem,) = problems(released, corrected)
  assert problem == f"the leaf 'bias' of {where} has NaN or infinite numbers."


def test_other_leaves_shapes_and_dtypes(corrected, z):
  released = release(corrected, z)
  (problem,) = problems({"kernel": released["kernel"]}, corrected)
  assert problem.startswith("released has the leaves kernel; it must")
  short = {**released, "bias": released["bias"][:9]}
  (problem,) = problems(short, corrected)
  assert problem.startswith("the leaf 'bias' of released has shape (9, 10)")
  single = {**released, "bias": released["bias"].astype(np.float32)}
  (problem,) = problems(single, corrected)
  assert problem == "the leaf 'bias' is of dtype float32; it must be float64."
  scalar = {"w": np.float64(0.0)}
  (problem,) = problems(scalar, scalar, "consensus")
  assert problem.startswith("the leaf 'w' is a scalar")
  with pytest.raises(ValueError, match="released has shape"):
    vector(short, corrected)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"sigma": 0.0}, r"sigma is 0\.0"),
    ({"grid": math.inf}, "grid is inf"),
    ({"norm": "rows"}, "norm is 'rows'"),
    ({"rows": 9}, "rows is 9"),
    ({"directions": {"a": {"w": np.ones(3)}}}, "directions has 'a' of another"),
  ],
)
def test_bad_input(corrected, z, options, message):
  arguments = {"sigma": SIGMA, "grid": GRID, "norm": "joint", **options}
  with pytest.raises(ValueError, match=message):
    list(scrutiny.disagreements(release(corrected, z), corrected, **arguments))
  back = {k: leaf * np.nan for k, leaf in corrected.items()}
  with pytest.raises(ValueError, match="NaN or infinite numbers in 'b'"):
    problems(release(corrected, z), corrected, directions={"b": back})


def test_a_direction_that_is_nothing_says_nothing(corrected, z):
  nothing = {k: np.zeros_like(leaf) for k, leaf in corrected.items()}
  assert (
    problems(release(corrected, z), corrected, directions={"zero": nothing})
    == []
  )
