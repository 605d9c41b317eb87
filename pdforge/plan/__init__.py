"""A recipe resolved against a cluster profile: stages, steps, sizes, identities."""
