"""Downstream tasks by EleutherAI's Language Model Evaluation Harness (`lm-eval`)."""
