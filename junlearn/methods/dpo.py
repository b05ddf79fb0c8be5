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

from typing import Any

import optax

from junlearn import language
from junlearn.loss import Loss
from junlearn.methods import npo
from junlearn.model import Model
from junlearn.transform import Transform


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
  **options: Any,
) -> Transform:
  """DPO; reads `forget` with `alternative`, and `retain` for the retain term.

  Published settings: beta 0.1 (IdkDPO); beta 0.05 to 0.5, retain weight 1 to 5,
  learning rate 1e-5 to 5e-5, 2 epochs (AltPO).

  Args:
    model: of text.
    optimizer: any optax transformation.
    **options: `num_steps`, `batch_size`, `beta`, `gamma`, `retain`, `view`,
      `loop` of `npo.transform`.

  Raises:
    ValueError: if `beta` is not positive; when applied, if the forget examples
      have no `alternative`.
  """
  return npo.transform(model, optimizer, loss=margin, **options)
