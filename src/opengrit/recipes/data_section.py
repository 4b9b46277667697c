"""What a recipe says of its data: the sets that are learned from and those that are measured on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from opengrit.core.recipe_section import RecipeSection
from opengrit.data.tables.files import HUB
from opengrit.data.tables.settings import CocoTask, Columns, Corners, TableSettings, Units
from opengrit.recipes.yaml import data_source


class Source(RecipeSection):
    """One data set."""

    name: str | None = Field(
        default=None, description="packaged set, for example stickers/train20; null: a file is named"
    )
    file: str | None = Field(
        default=None,
        description="GRIT JSONL file, table, folder or pattern of them, relative to the working folder; null: a set is named",
    )
    hub: str | None = Field(
        default=None,
        min_length=1,
        description="data set of the hub, owner/name:split or owner/name:configuration:split; null: a set or a file is named",
    )
    images: str | None = Field(
        default=None,
        description="folder the file's image paths start from; null: the folder the file lies in",
    )
    columns: Columns | None = Field(
        default=None, description="a table's columns; null: found by their names and what is in them"
    )
    boxes: Corners | None = Field(
        default=None,
        description="a table's boxes are left, top, right, bottom or x, y, width, height; null: the first, doubted where it does not fit",
    )
    box_units: Units | None = Field(
        default=None,
        description="a table's boxes are in pixels, per cent, 0 to 1 or 0 to 1000; null: pixels, doubted where they do not fit",
    )
    coco: CocoTask = Field(
        default="counting", description="what COCO annotations ask: how many of a kind, or where the one is"
    )

    @model_validator(mode="after")
    def _possible(self) -> Source:
        if sum(value is not None for value in (self.name, self.file, self.hub)) != 1:
            raise ValueError(
                "a data set has either name, file or hub, this one has several or none; keep one"
            )
        if self.name is not None and self.images is not None:
            raise ValueError(
                "a packaged set brings its own pictures, this one has images too; leave images out"
            )
        if self.name is not None and self.table.says_something:
            raise ValueError(
                "a packaged set has no columns and boxes of its own, this one names some; leave them out, or write file:"
            )
        return self

    @property
    def spec(self) -> str:
        """What `opengrit.data.load_examples` takes."""
        return self.name or self.file or f"{HUB}{self.hub}"

    @property
    def table(self) -> TableSettings:
        """How the file is read where it is a table."""
        return TableSettings(
            columns=self.columns or Columns(), corners=self.boxes, units=self.box_units, coco=self.coco
        )


class EvalSource(Source):
    """One data set that is measured on."""

    probe: bool = Field(
        default=False,
        description="while training, also ask the questions again with the boxes, all else and random boxes in grey (docs/probes.md)",
    )


class Data(RecipeSection):
    """What is learned from, and what is kept apart to measure with."""

    train: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        description="data sets trained on, taken together; no default"
    )
    eval: tuple[Annotated[EvalSource, BeforeValidator(data_source)], ...] = Field(
        default=(), description="data sets measured on, each reported by itself; default: none"
    )

    @field_validator("train")
    @classmethod
    def _some_data(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if not value:
            raise ValueError(
                "at least one data set is trained on, none is named; write stickers/train20, for example"
            )
        return value
