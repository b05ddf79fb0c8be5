"""Curvature as products with vectors, and what is solved with them."""

from junlearn.curvature.fisher_matrix import diagonal_fisher as diagonal_fisher
from junlearn.curvature.fisher_matrix import (
  empirical_fisher as empirical_fisher,
)
from junlearn.curvature.fisher_matrix import fisher as fisher
from junlearn.curvature.hvp import Matvec as Matvec
from junlearn.curvature.hvp import gauss_newton as gauss_newton
from junlearn.curvature.hvp import gradient as gradient
from junlearn.curvature.hvp import hessian as hessian
from junlearn.curvature.kinds import Curvature as Curvature
from junlearn.curvature.kinds import operator as operator
from junlearn.curvature.lowrank import woodfisher as woodfisher
from junlearn.curvature.newton_cg import NewtonInfo as NewtonInfo
from junlearn.curvature.newton_cg import newton as newton
from junlearn.curvature.solve import SolveInfo as SolveInfo
from junlearn.curvature.solve import conjugate_gradient as conjugate_gradient
