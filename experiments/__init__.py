"""One binary per modality; see README.md for what a run leaves behind."""
