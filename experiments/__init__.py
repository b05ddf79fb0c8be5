"""One binary per modality; see docs/map.md for what a run leaves behind."""
