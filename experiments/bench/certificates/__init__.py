"""Whether certificates hold: releases drawn at random, and the best tests."""
