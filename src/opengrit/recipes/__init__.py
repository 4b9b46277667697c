"""What a recipe says: one YAML file, complete, every key checked before anything loads.

May import `runs` and the floors below it. Begin with `training_recipe.py`; `yaml.py` reads a recipe of any kind.
"""

from opengrit.recipes.training_recipe import Recipe, load_recipe, parse_recipe

__all__ = ["Recipe", "load_recipe", "parse_recipe"]
