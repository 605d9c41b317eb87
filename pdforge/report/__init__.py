"""Results of runs: a table of held-out losses, and loss curves."""
