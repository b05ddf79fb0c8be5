"""Evidence: utility, attacks and the distance to retraining.

Statistics and most attacks run on the host on stored outputs, which `outputs`,
`text.generation` and `text.scores` compute; `text` has the metrics of text.
"""

from junlearn.audit import gap as gap
from junlearn.audit import membership as membership
from junlearn.audit import outputs as outputs
from junlearn.audit import population as population
from junlearn.audit import quantize as quantize
from junlearn.audit import relearn as relearn
from junlearn.audit import rmia as rmia
from junlearn.audit import sensitivity as sensitivity
from junlearn.audit import signals as signals
from junlearn.audit import utility as utility
