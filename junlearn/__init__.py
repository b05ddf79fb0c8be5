"""Functional machine unlearning in JAX.

    Transform: (key, params, request) -> Result(params, request, info)

See `junlearn.methods` for the published systems and baselines, `junlearn.audit`
for the evidence, `junlearn.data` for requests by id, class or fraction.
"""

from junlearn.descent import Descent as Descent
from junlearn.descent import descend as descend
from junlearn.descent import gradient_descent as gradient_descent
from junlearn.descent import population as population
from junlearn.descent import run as run
from junlearn.loop import NonFiniteError as NonFiniteError
from junlearn.model import Model as Model
from junlearn.model import from_function as from_function
from junlearn.model import from_linen as from_linen
from junlearn.model import from_nnx as from_nnx
from junlearn.parallel import across as across
from junlearn.transform import Request as Request
from junlearn.transform import Result as Result
from junlearn.transform import Transform as Transform
from junlearn.transform import chain as chain
from junlearn.transform import repeat as repeat
from junlearn.transform import replay as replay
from junlearn.view import View as View
