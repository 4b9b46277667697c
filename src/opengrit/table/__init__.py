"""The paper's table: data sets x ways of asking or training x models x seeds, measured, compared and put into words."""

from __future__ import annotations

from opengrit.table.recipe import TableRecipe, Way, load_table_recipe
from opengrit.table.run import run_table

__all__ = ["TableRecipe", "Way", "load_table_recipe", "run_table"]
