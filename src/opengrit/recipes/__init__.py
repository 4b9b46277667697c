"""What a recipe says: one YAML file, complete, every key checked before anything loads.

May import `runs` and the floors below it. Begin with `training_recipe.py`; `yaml.py` reads a recipe of any kind.
"""

from opengrit.judges.settings import JudgeSection
from opengrit.recipes.asking import AskingAgain, Eval
from opengrit.recipes.data_section import Data, Source
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.recipes.model_section import Lora, Model
from opengrit.recipes.objective import Advantage, ObjectCredit
from opengrit.recipes.train_section import Train
from opengrit.recipes.training_recipe import Recipe, load_recipe, parse_recipe
from opengrit.rewards.settings import RewardSettings

__all__ = [
    "Advantage",
    "AskingAgain",
    "Data",
    "Eval",
    "EvalRecipe",
    "JudgeSection",
    "Lora",
    "Model",
    "ObjectCredit",
    "Recipe",
    "RewardSettings",
    "Source",
    "Train",
    "load_recipe",
    "parse_recipe",
]
