"""What all experiments share: one runner, and the folder of a run."""
