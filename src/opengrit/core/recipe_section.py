"""The base of every section of a recipe: no unknown keys, and no value that pydantic would silently convert."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def not_bool(value: Any) -> Any:
    """Refuses true and false, which pydantic takes for 1 and 0; for pydantic's BeforeValidator."""
    if isinstance(value, bool):
        raise ValueError("this key takes no true or false; write a number or a name")
    return value


class RecipeSection(BaseModel):
    """A section of a recipe, or a whole one: no unknown keys, no infinite numbers, no true for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = (annotation, *get_args(annotation))
        if value is True and any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
            raise ValueError(
                f"this key holds keys of its own, got true; write {info.field_name}: {{}} for their defaults"
            )
        return value if bool in kinds else not_bool(value)
