"""Token and logit stores: what the stages leave behind, keyed by sample index. Never imports torch."""
