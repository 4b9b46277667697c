"""How a table is to be read where its own names and numbers do not say it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from opengrit.core.errors import DataError
from opengrit.core.recipe_section import RecipeSection

Corners = Literal["xyxy", "xywh"]
Units = Literal["pixels", "percent", "unit", "thousand"]
CocoTask = Literal["counting", "boxes"]


class Columns(RecipeSection):
    """The columns of a table that hold a row's parts; null: found by name and content."""

    picture: str | None = Field(default=None, description="column of the pictures' names, or of the pictures")
    question: str | None = Field(default=None, description="column of the questions")
    answer: str | None = Field(default=None, description="column of the answers; one may hold several")
    boxes: str | None = Field(
        default=None, description=("column of the boxes; null: found by name, else no boxes")
    )
    also_accepted: str | None = Field(default=None, description="column of further right answers")


class TableSettings(RecipeSection):
    """What is asked for by option or in a recipe. `corners` and `units` are None where nothing is said about boxes."""

    columns: Columns = Field(default=Columns(), description="the columns that are named")
    corners: Corners | None = Field(default=None, description="what a box's four numbers are")
    units: Units | None = Field(default=None, description="what they count")
    coco: CocoTask = Field(default="counting", description="what COCO annotations ask")

    @property
    def says_something(self) -> bool:
        """Whether anything is asked for: a file is then read as a table, whatever it holds."""
        return self != TableSettings()


def parse_columns(text: str) -> Columns:
    """The columns of "picture=photo,question=ask". Raises DataError for a part that is none, or is there twice."""
    found: dict[str, str] = {}
    for item in text.split(","):
        part, equals, column = (word.strip() for word in item.partition("="))
        if not equals or not column or part not in Columns.model_fields or part in found:
            raise DataError(
                f"columns are named once each as PART=COLUMN with the parts {', '.join(Columns.model_fields)}, got {item!r} in "
                f"{text!r}; write picture=photo,question=ask, for example"
            )
        found[part] = column
    return Columns(**found)
