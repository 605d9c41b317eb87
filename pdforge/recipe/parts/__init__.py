"""The typed parts of a recipe; `pdforge.recipe.models` exports them all."""
