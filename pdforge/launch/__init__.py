"""Job directory → attempts of stages: start, watch, stop, resume, say how they stand. All state is in files."""
