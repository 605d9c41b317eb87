"""The mathematics of pre-training distillation in torch. Knows nothing of torchtitan, files or recipes."""
