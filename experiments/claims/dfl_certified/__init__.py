"""The claims of `experiments.claims.dfl_certified`, a module each."""
