"""Certified unlearning: bounds, calibrated noise, accounts and records.

Said once, with proofs; other modules refer to it as "certify, lemma 3". Norms
are Euclidean, over all parameters at once; `A >= c` means `v'Av >= c |v|^2`.

1. The guarantee

Params `w` were trained on the records `S`; a request names records `U` by id. A
copy of a record under another id is another record, and stays. Let `w'` be the
optimum on `S - U` (or the fixed point of the rounds of training), and `w_r`
what retraining by the stated procedure gives, `|w_r - w'| <= retrain_error`.
From `w`, `certified` makes `w~` with `|w~ - w'| <= max_distance` and releases
`R = [w~] + [b]`; retraining would release `R_r = [w_r] + [b]`, at the same
public sigma (lemmas 7, 8). For every set `O` of params, over `b`, fresh
Gaussian noise that nobody knows,

    Pr[R in O] <= e^epsilon Pr[R_r in O] + delta     and vice versa,

for all `S`, `U`, `w` and `w_r`; random ones only mix such pairs. Params that
are not free must not depend on `U`. An account extends this to requests
`U_1, U_2, ...`: all its releases jointly, against retraining on `S` without
`U_1 ... U_k` for each `k`. Requests may depend on earlier releases: each starts
from params without noise, which depend on the requests alone. What retraining
itself tells, say by requests that were chosen knowing a record, the release may
tell too (R. Chourasia, N. Shah, 2210.08911).

Covered are the released params and nothing else:

- Not what was released before, as in Guo et al. (arXiv 1911.03030) and Sekhari
  et al. (2103.03279). If `w` was published without noise, it tells of `U` by
  itself, and next to `R` it tells more (M. Chen et al., 2005.02205). Then only
  this is true: `(w, R)` and `(w, R_r)` are indistinguishable, no more is told
  than by retraining. If `w + b_0` was published, with independent noise of
  sigma_0, and `|w - w_0| <= D_0` for `w_0` trained likewise on `S - U`, then
  `(w + b_0, R)` and `(w_0 + b_0, R_r)` compose (lemma 7) to

      mu^2 = (D_0 / sigma_0)^2 + (Delta / sigma)^2.

  `D_0` is a sensitivity (lemma 2), usually far above `Delta`. Earlier releases
  of an account are of this kind: what the one for `U_1` is compared with still
  contains `U_2`.
- Not time, iterations, measured numbers of the certificate, or what clients
  sent each other: they depend on `U`, without noise.
- Not refusals: whether `w~` meets its bound depends on `S` and `U`, not on the
  noise. The guarantee is for the `S`, `U` that are not refused, and a refusal
  tells that it was one. With a `fallback` that retrains, held to the same
  distance, it is for all on which that succeeds. A budget refuses by distances
  and sigmas; fixed in advance, these tell nothing.

2. Models

`F(w) = mean over the retained records of ell(w, z) + l2/2 |w|^2`, `w'` its
minimizer, `g = grad F(w)`, `e = w - w'`. An `ell` convex in outputs that are
affine in `w` (`convexity`) is convex in `w`, hence `Hess F >= l2`.

Lemma 1 (residual). `|w - w'| <= |g| / l2` for every `w`.
  As `grad F(w') = 0`, strong convexity gives `l2 |e|^2 <= <g, e> <= |g| |e|`.
  In `bounds.residual`, whatever found `w`.

Lemma 2 (Newton). If `|Hess F(a) - Hess F(b)| <= M |a - b|`, then for
`H = Hess F(w)` and every `p`

    |w - p - w'| <= M |e|^2 / (2 l2) + |g - H p| / l2.

  `e - p = H^-1 (H e - g) + H^-1 (g - H p)`, and `H e - g` is the integral over
  `t` in [0, 1] of `(Hess F(w) - Hess F(w' + t e)) e`, at most `M |e|^2 / 2`. By
  lemma 1 `|e| <= |g| / l2`. Before looking: with `F_S` the risk of all `n`
  records, `n grad F_S(w')` is the sum over `U` of `grad ell + l2 w'`, each at
  most `L`, the rest being 0; lemma 1 for `F_S` gives
  `|e| <= (r + m L / n) / l2` where `m` records go and `|grad F_S(w)| <= r`.
  In `bounds.newton_step`, `inexact_newton_step`, `a_priori`.

Lemma 3 (third derivative). With logits linear in `w`, inputs `|x| <= r` and
scores that spread over `rho r` at most along unit directions,
`M = rho^3 r^3 / (6 sqrt 3)`.
  (a) The third derivative of `log sum exp z - z_y` along one direction `v` is
  the third central moment of the scores `(v x)_k` under the model's
  probabilities. With one logit they are 0 and `v.x`: `rho = 1`; with one a
  class, two differ by at most `sqrt(2) |v| |x|`.
  (b) It is at most `c^3 / (6 sqrt 3)` for scores in an interval of length `c`.
  Given the mean it is linear in the probabilities, under two equations (sum,
  mean), so that an optimum has two points, `d <= c` apart, of probabilities `p`
  and `1 - p`: `d^3 p (1 - p)(1 - 2p)`, largest at `p = (1 - 1/sqrt 3) / 2`.
  (c) A symmetric trilinear `T` is largest over unit vectors where they are
  equal (S. Banach, "Ueber homogene Polynome in (L^2)", Studia Math. 7, 1938).
  For `|T(u, u, v)|`: of the pairs with `T(u, u, v) = A`, the maximum, take that
  with the largest `c = <u, v>`, at least 0 by the sign of `u`. There
  `T(u, v, .) = A <u, .>` and `T(u, u, .) = A <v, .>`; so `x = u + v` has
  `T(x, x, u) = A (2 + 2c) = A |x|^2`, and `x / |x|`, `u` are such a pair with
  `<x, u> / |x| = sqrt((1 + c) / 2)`. Not above `c`, hence `c = 1` and `u = v`.
  `u'(Hess F(a) - Hess F(b))u` is a mean of `T(u, u, a - b)`. In `constants`.

3. Clients

`X` has a row for each of `N` clients, whose risks are `F_i`, each as in 2; `W`
is symmetric, its entries are at least 0 and its rows sum to 1
(`topology.check_mixing`); `gamma` is the step size.

Lemma 4 (Psi). One step a round, `T(X) = W X - gamma grad F(X)`, is gradient
descent on `Psi(X) = sum F_i(x_i) + <X, (I - W) X> / (2 gamma)`.
`Hess Psi >= l2`, the fixed point `X'` of `T` is the minimizer, and
`|X - X'| <= |X - T(X)| / (gamma l2)`.
  `grad Psi = grad F + (I - W) X / gamma = (X - T(X)) / gamma`, by symmetry. As
  rows sum to 1, `<X, (I - W) X>` is half the sum of `W_ij |x_i - x_j|^2`, not
  below 0; then lemma 1. Sums of `1 + s_i` take `max |s_i| / gamma` from `l2`,
  of which `clients.retraining` allows a millionth. A `W` that is only
  row-stochastic lacks the first and may lack the second. In
  `methods.decentralized_newton`, and `bounds.stacked_a_priori` (with lemma 2).

Lemma 5 (local steps). For `T = W G^tau` with gradient steps `G`,
`l2 <= Hess F_i <= beta` and `kappa = max(|1 - gamma l2|, |1 - gamma beta|)^tau`
below 1, `|X - X'| <= |X - T(X)| / (1 - kappa)`.
  `G(X) - G(Y) = (I - gamma A)(X - Y)`, `A` a mean of Hessians; by Jensen
  `|W X|^2 <= sum W_ij |x_j|^2 = |X|^2`. So `T` contracts by `kappa`, and
  `|X - X'| <= |X - T(X)| + |T(X) - T(X')|` (Banach's fixed point). In
  `bounds.local_contraction`, `fixed_point_residual`.

Lemma 6 (consensus). `|x - x'| <= |mean_i grad F_i(x)| / l2` for the minimizer
`x'` of the mean risk. If all rows are `x` and share one draw of noise,
releasing all is releasing one.
  A mean of `l2`-strongly convex risks is one; lemma 1; the rows stay equal.

So noise goes with what is bounded (`noise.Norm`). A bound on a "row" needs one
draw for all: the mean of `N` equal rows with draws of their own has noise
`sigma / sqrt N`, and at `N = 8` what claims (1, 1e-5) has epsilon 3.19. A
"joint" bound needs a draw for each row: shared noise cancels in `x_i - x_j`.

4. Noise and numbers

Lemma 7 (Gaussians). `N(a, sigma^2 I)` and `N(a', sigma^2 I)` at a distance of
up to `Delta` are (epsilon, delta)-indistinguishable if and only if delta is at
least the formula of `calibrate` at `mu = Delta / sigma` (B. Balle, Y.-X. Wang,
arXiv 1805.06530, theorem 8). Releases compose to `mu^2 = sum mu_k^2`, also
where they depend on earlier ones (J. Dong, A. Roth, W. J. Su, 1905.02383,
section 3), and where the `mu_k` do too, if their sum is kept to a budget (A.
Smith, A. Thakurta, 2210.17520).
  The last is for a sigma chosen from earlier releases; from data it must never
  be. In our runs the configuration fixes every sigma. Given the earlier
  releases, the log-likelihood ratio of release k is normal with mean
  `mu_k^2 / 2` and variance `mu_k^2`, where they determine
  `mu_k <= Delta_k / sigma_k`; add a fictitious last release that fills the
  budget, `sum_k mu_k^2 = mu^2`, which only helps to distinguish the two. With S
  and V the sums of the centered ratios and of the variances,
  `exp(i t S + t^2 V / 2)` is a martingale, and V ends at `mu^2` on every path:
  `E exp(i t S) = exp(-t^2 mu^2 / 2)`. So the joint ratio is normal with mean
  `mu^2 / 2` and variance `mu^2`, that of one release at `mu`. In `accountant`.

Lemma 8 (rounding). `[.]` is the nearest multiple of `g`, a public power of two.
`[a] + [b]` tells no more than `[a] + b`, and for `d` numbers
`|[a] - [a']| <= |a - a'| + g sqrt d`, which the distance behind sigma includes.
  Each number moves by at most `g/2`; `[a]` being on the grid, `[a] + [b]` is
  `[[a] + b]`, post-processing. In float64 the sum is exact below `2^52 g`: with
  `g` near `2^-20 sigma`, where sigma is at least `2^20` spacings of doubles. So
  low bits do not betray the params (I. Mironov, "On Significance of the Least
  Significant Bits for Differential Privacy", CCS 2012). In `noise`.

Lemma 9 (measured gradients). Sums of `k` numbers in float64, in any order, are
wrong by at most `gamma_k = k u / (1 - k u)`, `u = 2^-53`, times the sum of the
moduli (N. Higham, "Accuracy and Stability of Numerical Algorithms", chapters 3,
4). Let outputs `J_i w + b_i` be summed from terms of moduli
`m_i = A_i |w| + beta_i` (`magnitude`), and `d_i`, `c_i` be the derivatives of
`ell` by them. The gradient is wrong by at most `gamma_k (S + l2 |w|)`,
`S = mean_i |A_i| (1 + |d_i| + c_i |m_i|)`, `k` the number of summands of all
sums.
  To first order outputs are wrong by `gamma m_i`, `d_i` by `c_i` times this and
  `gamma` of its own; `J_i' d_i` and the mean add `gamma |A_i| |d_i|`.
  In `rounding`, with `2u` for what is not of first order.
"""

from junlearn.certify import accountant as accountant
from junlearn.certify import bounds as bounds
from junlearn.certify import calibrate as calibrate
from junlearn.certify import certificate as certificate
from junlearn.certify import constants as constants
from junlearn.certify import convexity as convexity
from junlearn.certify import derived as derived
from junlearn.certify import fingerprint as fingerprint
from junlearn.certify import ledger as ledger
from junlearn.certify import noise as noise
from junlearn.certify import premises as premises
from junlearn.certify import rounding as rounding
from junlearn.certify import scrutiny as scrutiny
from junlearn.certify import signing as signing
from junlearn.certify.release import Bound as Bound
from junlearn.certify.release import NotReachedError as NotReachedError
from junlearn.certify.release import certified as certified
from junlearn.certify.release import describe as describe
