"""Curvature as products with vectors, and what is solved with them."""

from junlearn.curvature.average import average as average
from junlearn.curvature.hvp import Matvec as Matvec
from junlearn.curvature.hvp import gauss_newton as gauss_newton
from junlearn.curvature.hvp import gradient as gradient
from junlearn.curvature.hvp import hessian as hessian
from junlearn.curvature.newton import NewtonInfo as NewtonInfo
from junlearn.curvature.newton import newton as newton
from junlearn.curvature.solve import SolveInfo as SolveInfo
from junlearn.curvature.solve import conjugate_gradient as conjugate_gradient
