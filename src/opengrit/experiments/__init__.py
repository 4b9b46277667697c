"""The paper's table: data sets x ways of asking or training x models x seeds, measured, compared and put into words.

May import `reports` and the floors below it. Begin with `recipe.py`, then `run.py`.
"""

from __future__ import annotations

from opengrit.experiments.recipe import TableRecipe, load_table_recipe
from opengrit.experiments.run import finished_runs, run_table, table_so_far
from opengrit.experiments.ways import Way

__all__ = ["TableRecipe", "Way", "finished_runs", "load_table_recipe", "run_table", "table_so_far"]
