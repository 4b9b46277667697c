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
        default=None,
        description=("packaged set, for example stickers/train20; null: file or hub names the data"),
    )
    file: str | None = Field(
        default=None,
        description=(
            "JSONL file, table, a folder or pattern of them, relative to the working folder; null: name or hub names "
            "the data"
        ),
    )
    hub: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "hub data set, owner/name:split or owner/name:configuration:split; null: name or file names the data"
        ),
    )
    images: str | None = Field(
        default=None,
        description="folder that the file's image paths are relative to; null: the file's folder",
    )
    columns: Columns | None = Field(
        default=None, description="a table's columns; null: found by name and content"
    )
    boxes: Corners | None = Field(
        default=None,
        description=(
            "a table's boxes are left, top, right, bottom or x, y, width, height; null: the first, with a warning if "
            "it does not fit"
        ),
    )
    box_units: Units | None = Field(
        default=None,
        description=(
            "a table's boxes are in pixels, per cent, 0 to 1 or 0 to 1000; null: pixels, with a warning if they do not "
            "fit"
        ),
    )
    coco: CocoTask = Field(
        default="counting",
        description=(
            "questions to make of COCO annotations: how many of a kind, or where the one of a kind is"
        ),
    )

    @model_validator(mode="after")
    def _possible(self) -> Source:
        if sum(value is not None for value in (self.name, self.file, self.hub)) != 1:
            raise ValueError(
                "a data set has exactly one of name, file and hub, this one has several or none; keep one"
            )
        if self.name is not None and self.images is not None:
            raise ValueError("a packaged set has its own pictures, this one has images too; leave images out")
        if self.name is not None and self.table.says_something:
            raise ValueError(
                "a packaged set takes no columns or boxes, this one names some; leave them out, or write file:"
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
        description=(
            "while training, also probe the answers: ask again with the boxes, everything else, or random boxes grey "
            "(docs/probes.md)"
        ),
    )


class Data(RecipeSection):
    """What is learned from, and what is kept apart to measure with."""

    train: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        description="training data sets, taken together; no default"
    )
    eval: tuple[Annotated[EvalSource, BeforeValidator(data_source)], ...] = Field(
        default=(), description="evaluation data sets, each reported separately; default: none"
    )

    @field_validator("train")
    @classmethod
    def _some_data(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if not value:
            raise ValueError(
                "training needs at least one data set, got none; write stickers/train20, for example"
            )
        return value
