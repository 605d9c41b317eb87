"""The recipe language: typed models, YAML with positions, composition, rules."""
