"""IdkDPO and AltPO: another answer preferred to the forgotten one.

IdkDPO: a baseline of P. Maini et al., "TOFU: A Task of Fictitious Unlearning
for LLMs", arXiv 2401.06121; AltPO: A. Mekala et al., "Alternate Preference
Optimization for Unlearning Factual Knowledge in Large Language Models", arXiv
2409.13474.

Each forgotten prompt has a second answer: a refusal (IdkDPO), or a plausible
one of the same kind (AltPO). The model is to prefer it to the true one by more
than the reference does. Unlike pure ascent this says what to answer.

    m = S(y_alternative) - S(y),    m_ref the same at the reference
    L_f = -(2 / beta) E log sigmoid(beta (m - m_ref))
    L = gamma L_f + alpha L_retain

It is NPO of the loss m; `m_ref` is computed once, before the descent.

Differences from the released code: TOFU's has neither the factor 2 / beta nor a
retain term, which is `gamma=beta / 2, retain=None` here.
"""

from typing import Unpack

import optax

from junlearn import language
from junlearn.descent import DescendOptions
from junlearn.language import Retain
from junlearn.loss import Loss
from junlearn.methods import npo
from junlearn.methods.card import Card
from junlearn.model import Model
from junlearn.transform import Transform

CARD = Card(
  paper=(
    "P. Maini et al., 2024, arXiv 2401.06121; A. Mekala et al., 2024, "
    "arXiv 2409.13474"
  ),
  modality="language",
  reads=("forget", "retain"),
  needs_retain=True,
  cost="a pass over D_f, then steps on two answers and a retain batch",
)


def margin(model: Model) -> Loss:
  """`S(y_alternative) - S(y)` of examples with an `alternative`."""
  nll = npo.sequence_loss(model)

  def loss(params, examples, key=None):
    worse, params = nll(params, examples, key)
    better, params = nll(params, language.alternative(examples), key)
    return worse - better, params

  return loss


def transform(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 0.1,
  gamma: float = 1.0,
  retain: Retain | None = language.NLL,
  **options: Unpack[DescendOptions],
) -> Transform:
  """DPO; reads `forget` with `alternative`, and `retain` for the retain term.

  Published settings: beta 0.1 (IdkDPO); beta 0.05 to 0.5, retain weight 1 to 5,
  learning rate 1e-5 to 5e-5, 2 epochs (AltPO).

  Args:
    model: of text.
    optimizer: any optax transformation.
    beta: inverse temperature, above 0.
    gamma: weight of the forget term.
    retain: the retain term.
    **options: of `descent.descend`, see `descent.DescendOptions`.

  Raises:
    ValueError: if `beta` is out of range; when applied, if the forget examples
      have no `alternative`.
  """
  return npo.transform(
    model,
    optimizer,
    beta=beta,
    gamma=gamma,
    loss=margin,
    retain=retain,
    **options,
  )
