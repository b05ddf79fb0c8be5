"""Certified unlearning: bounds, calibrated noise, accounts and records."""

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
from junlearn.certify.certified import certified as certified
