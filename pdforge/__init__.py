"""pdforge: a recipe compiler and job launcher for pre-training distillation (arXiv 2410.16215)."""

__version__ = "0.1.0"
