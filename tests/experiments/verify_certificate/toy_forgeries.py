"""What a forger may do to a run of `toy_release`, by name.

Each changes the folder of a run; hashes and signatures are made to agree
afterwards (`experiments.bench.forgeries.rewrite`), and the words are in what
the verifier must then still say.
"""

import functools
import json
import shutil

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.bench.forgeries.folder import read_json, write_json
from experiments.release import register
from experiments.run.workdir import restore_flags
from junlearn.certify import certificate, derived
from tests.experiments.verify_certificate import toy_release as toy

FIRST, SECOND = (f"releases/{name}" for name in toy.releases())
CERTIFICATE = f"{SECOND}/certificate.json"
ZEROS = "0" * 64


def edit(content, path, value):
  """Sets a field, or removes it where the value is `...`."""
  *parents, last = path.split(".")
  for name in parents:
    content = content[name]
  if value is ...:
    del content[last]
  else:
    content[last] = value(content[last]) if callable(value) else value


def lines(folder):
  """The ledger's lines, as dicts."""
  text = (folder / register.LEDGER).read_text()
  return [json.loads(line) for line in text.splitlines()]


def write_lines(folder, found):
  """The ledger of these lines."""
  text = "".join(f"{json.dumps(line)}\n" for line in found)
  (folder / register.LEDGER).write_text(text)


def stated(path, value):
  """A field of the second certificate."""

  def forge(folder):
    content = read_json(folder / CERTIFICATE)
    edit(content, path, value)
    write_json(folder / CERTIFICATE, content)

  return forge


def entered(path, value):
  """A field of the ledger's second line."""

  def forge(folder):
    found = lines(folder)
    edit(found[1], path, value)
    write_lines(folder, found)

  return forge


def flag(name, value):
  """A flag of the run."""

  def forge(folder):
    content = read_json(folder / "config.json")
    edit(content["flags"], name, value)
    write_json(folder / "config.json", content)

  return forge


def together(*forgeries):
  """One after the other."""

  def forge(folder):
    for each in forgeries:
      each(folder)

  return forge


def reissued(name, value):
  """Another flag, and all certificates and lines as that flag has them."""

  def forge(folder):
    flag(name, value)(folder)
    restore_flags(folder)
    reader, terms = toy.reader(folder), toy.promised()
    salt = (folder / register.SALT).read_bytes()
    config = (folder / "config.json").read_bytes()
    found = lines(folder)
    for line, release in zip(found, toy.releases(), strict=True):
      answer, _ = reader.answer(release)
      issued = register.certify(
        answer, terms, experiment=toy.EXPERIMENT, config=config, salt=salt
      )
      text = certificate.to_json(issued)
      (folder / f"releases/{release}/certificate.json").write_text(text)
      line |= register.line(issued, answer, terms, salt)
    write_lines(folder, found)

  return forge


def noise(change, index=1):
  """Other noise in a release.

  Args:
    change: `(noise of both releases, direction to the original) -> noise`.
    index: of the release.
  """

  def forge(folder):
    before, _ = ravel_pytree(toy.kept(folder, "original"))
    found = [_noise(folder, name) for name in toy.releases()]
    _, corrected, restore, sigma, grid = found[index]
    back = np.asarray(before - corrected)
    z = change([each[0] for each in found], back / np.linalg.norm(back))
    released = np.round(corrected / grid) + np.round(z * (sigma / grid))
    path = folder / (FIRST, SECOND)[index] / "params.safetensors"
    path.write_bytes(register.to_safetensors(restore(released * grid)))

  return forge


def _noise(folder, name):
  terms = read_json(folder / f"releases/{name}/certificate.json")
  path = folder / f"releases/{name}/params.safetensors"
  like = jax.device_get(toy.start())
  released, _ = ravel_pytree(register.from_safetensors(path, like))
  corrected, restore = ravel_pytree(toy.kept(folder, name))
  sigma, grid = terms["sigma"], terms["grid"]
  corrected = np.asarray(corrected)
  z = (np.asarray(released) - np.round(corrected / grid) * grid) / sigma
  return z, corrected, restore, sigma, grid


def _low_digits(folder):
  path = folder / SECOND / "params.safetensors"
  params = register.from_safetensors(path, jax.device_get(toy.start()))
  params["params"]["Dense_0"]["bias"][0] *= 1 + 2**-50
  path.write_bytes(register.to_safetensors(params))


def _smaller_goal(folder):
  measured = read_json(folder / CERTIFICATE)["measured"]["result"]
  flag("max_distance", measured / 145)(folder)
  for name in (FIRST, SECOND):
    path = folder / name / "certificate.json"
    content = read_json(path)
    edit(content, "max_distance", measured / 145)
    write_json(path, content)


def _without_line(index):
  def forge(folder):
    found = lines(folder)
    del found[index]
    write_lines(folder, found)

  return forge


def _without(path):
  def forge(folder):
    here = folder / path
    shutil.rmtree(here) if here.is_dir() else here.unlink()

  return forge


def _swapped(first, second):
  def forge(folder):
    a, b = folder / first, folder / second
    other = a.with_name("other")
    a.rename(other)
    b.rename(a)
    other.rename(b)

  return forge


def _lines_swapped(folder):
  write_lines(folder, lines(folder)[::-1])


def _one_more(folder):
  shutil.copytree(folder / SECOND, folder / "releases/seed0/toy/2")
  write_lines(
    folder, [*lines(folder), lines(folder)[1] | {"request": "seed0/toy/2"}]
  )


def _another(path, content):
  return lambda folder: (folder / path).write_bytes(content)


def _of_size(scale, index=1):
  """Whatever the honest noise came to."""

  def change(z, back):
    del back
    return scale * z[index] / np.sqrt(np.mean(z[index] ** 2))

  return change


def _in_one_number(z, back):
  del back
  return np.linalg.norm(z[1]) * (np.arange(z[1].size) == 7)


_ALL_LINES = (_without_line(1), _without_line(0))
_MADE_UP = {
  "theorem": "residual",
  "arguments": {
    "l2": toy.L2,
    "gradient_norm": 1e-12,
    "gradient_error": 1e-14,
  },
  "result": 1.01e-12 / toy.L2,
}
_HEAD = derived.head_of(
  "softmax", input_norm=1.0, l2=toy.L2, num_classes=10, scale=1.0
)
_TEN_TIMES = functools.partial(lambda factor, x: factor * x, 10)
_NOISE = {
  "used again": lambda z, back: z[0],
  "used again negated": lambda z, back: -z[0],
  "none": lambda z, back: 0 * z[1],
  "half": lambda z, back: z[1] / 2,
  "one of two values": lambda z, back: np.sign(z[1]),
  "in one number": _in_one_number,
  "with an offset": lambda z, back: z[1] + 0.2,
  "towards the original": lambda z, back: z[1] + 12 * back,
  "a ninth smaller": _of_size(0.89),
}
_STATED = {
  "schema": 2,
  "experiment": "decentralized",
  "release": "seed0/toy/0",
  "epsilon": 10.0,
  "delta": 1e-3,
  "max_distance": _TEN_TIMES,
  "retrain_error": 0.0,
  "rounding": 0.0,
  "sigma": lambda sigma: 200 * sigma,
  "grid": lambda grid: 2 * grid,
  "norm": "row",
  "noise_dimensions": 1,
  "noise_dimensions ": 10**400,
  "measured": _MADE_UP,
  "measured.arguments.gradient_norm": 1e-12,
  "measured.theorem": "guo",
  "limit": _MADE_UP,
  "head": certificate.strict.plain(_HEAD),
  "fallback": True,
  "checked": {},
  "checked.weights": ...,
  "checked.linear": "The model is good.",
  "stated": {},
  "stated.noise": ...,
  "stated.features": "The features are good.",
  "hashes.forget_ids": ZEROS,
  "hashes.retain_ids": ZEROS,
  "hashes.params_before": ZEROS,
  "seeds": {},
}
_ENTERED = {
  "distance": 0,
  "distance ": 1e-9,
  "sigma": lambda sigma: 200 * sigma,
  "epsilon": 10.0,
  "delta": 1e-3,
  "records": lambda records: records[1:],
  "params_before": ZEROS,
  "request": "seed0/toy/7",
}
_FLAGS = {
  "epsilon": 10.0,
  "delta": 1e-3,
  "planned_releases": 9,
  "max_distance": 1e-2,
}

# By name: the forgery, and words of what must be said of it at least.
FORGERIES = {
  **{f"noise {name}": (noise(f), "noise") for name, f in _NOISE.items()},
  **{
    f"certificate's {name}": (stated(name.strip(), value), name.split(".")[0])
    for name, value in _STATED.items()
  },
  **{
    f"ledger's {name}": (entered(name.strip(), value), "ledger")
    for name, value in _ENTERED.items()
  },
  **{
    f"flag {name}": (flag(name, value), "computed again")
    for name, value in _FLAGS.items()
  },
  **{
    f"all by {name}": (reissued(name, value), "noise of")
    for name, value in _FLAGS.items()
  },
  "seed of the noise": (
    stated("seeds.noise", ZEROS),
    "may lead to the noise",
  ),
  "noise of both a little smaller": (
    together(noise(_of_size(0.94, 0), 0), noise(_of_size(0.94))),
    "2 releases together: its size is 0.94 sigma",
  ),
  "low digits": (_low_digits, "no exact multiples of the grid"),
  "smaller goal": (_smaller_goal, "only known to be at most"),
  "sigma in both": (
    together(stated("sigma", _TEN_TIMES), entered("sigma", _TEN_TIMES)),
    "sigma is ",
  ),
  "first line removed": (_without_line(0), "line 1 is that of"),
  "last line removed": (_without_line(1), "has no line 2"),
  "all lines removed": (together(*_ALL_LINES), "has no line 1"),
  "ledger removed": (_without(register.LEDGER), "has no line 1"),
  "lines swapped": (_lines_swapped, "line 1 is that of"),
  "first release removed": (_without(FIRST), "No such file"),
  "release and line removed": (
    together(_without(SECOND), _without_line(1)),
    "has no line 2",
  ),
  "releases removed": (_without("releases"), "has no line 1"),
  "one release more": (_one_more, "line 3 has no place"),
  "one file more": (
    _another(f"{FIRST}/params", b""),
    "is no part of this run's releases",
  ),
  "releases swapped": (_swapped(FIRST, SECOND), "release is "),
  "params swapped": (
    _swapped(f"{FIRST}/params.safetensors", f"{SECOND}/params.safetensors"),
    "noise of",
  ),
  "params kept swapped": (
    _swapped(*(f"checkpoints/{name}.safetensors" for name in toy.releases())),
    "only known to be at most",
  ),
  "salt": (_another(register.SALT, bytes(32)), "hashes.forget_ids is"),
  "public key": (_another(register.PUBLIC_KEY, b"0" * 64), "is not the key"),
}
