"""The coordinate frame a model family writes in, and the way from it to the unit square and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import ModelError, RecipeError
from opengrit.core.types import Rejection


class Unit(Enum):
    """What one written step of a coordinate means."""

    PIXELS = "pixels"  # a pixel of the picture as the model saw it, after its processor resized it
    THOUSAND = "thousand"  # a thousandth of the picture's width or height
    UNIT = "unit"  # the whole width or height


# From the model cards and the released GRIT evaluation: Qwen2.5-VL writes pixels of its resized input, the
# others write 0-1000. The key is `model_type` in the model's config.json, never a path or a name.
UNIT_BY_MODEL_TYPE = {
    "qwen2_vl": Unit.THOUSAND,
    "qwen2_5_vl": Unit.PIXELS,
    "qwen3_vl": Unit.THOUSAND,
    "qwen3_vl_moe": Unit.THOUSAND,
    "internvl": Unit.THOUSAND,
    "internvl_chat": Unit.THOUSAND,
}

# How far a written number may lie outside the picture, as a share of its width or height, and still be
# clipped to it. Models overshoot an edge by rounding and by padding, up to about a tenth in the samples we
# have. A number a factor away (thousandths where a small picture's pixels belong, a runaway 9999) says that
# the model lost the frame, and clipping it would turn nonsense into a large box.
OVERSHOOT = 0.5

UNIT_DECIMALS = 3
SMALLEST_AREA = 1.0  # of a box, in square steps of a frame that is written in whole ones


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a family's numbers lie: the frame's name, the picture's size as the model saw it, the unit."""

    name: str
    seen_size: Size
    unit: Unit

    @classmethod
    def for_model_type(cls, model_type: str, *, seen_size: Size) -> Frame:
        """The frame a model family writes in, by the `model_type` of its config.

        Raises ModelError if the family is not known.
        """
        if model_type not in UNIT_BY_MODEL_TYPE:
            raise ModelError(
                f"the coordinate frame is known for the model types {', '.join(sorted(UNIT_BY_MODEL_TYPE))}, "
                f"got {model_type!r} from the model's config; say which one it writes with frame: "
                f"{_names()} in the recipe, or with --frame"
            )
        return cls(model_type, seen_size, UNIT_BY_MODEL_TYPE[model_type])

    @classmethod
    def named(cls, name: str, seen_size: Size) -> Frame:
        """The frame a recipe asks for: "pixels" of the seen picture, "thousand" (0-1000) or "unit" (0-1).

        Raises RecipeError for any other name.
        """
        if name not in {unit.value for unit in Unit}:
            raise RecipeError(
                f"frame: is one of {_names()}, got {name!r} in the recipe or the command's options; use one of them"
            )
        return cls(name, seen_size, Unit(name))

    @property
    def extent(self) -> tuple[float, float]:
        """The numbers of the picture's right and bottom edge."""
        match self.unit:
            case Unit.PIXELS:
                return float(self.seen_size.width), float(self.seen_size.height)
            case Unit.THOUSAND:
                return 1000.0, 1000.0
            case Unit.UNIT:
                return 1.0, 1.0

    def to_box(self, numbers: Sequence[float], *, written_unit: str = "") -> Box | Rejection:
        """The box of left, top, right, bottom in this frame, or why there is none.

        `written_unit` is "px" or "%" where the text says so. Per cent is no frame that a family writes, and pixels are
        one frame of three, so a number in another unit is rejected and not converted. So is a box of less than one
        square step where steps are whole (pixels, thousandths): 0.1 to 0.4 is a fraction of the picture, and no box of
        a third of a pixel. A box that reaches over an edge by at most OVERSHOOT of the picture is clipped to it.
        """
        if len(numbers) != 4:
            return Rejection.NOT_FOUR_NUMBERS
        if not all(math.isfinite(n) for n in numbers):
            return Rejection.NOT_FINITE
        if written_unit == "%" or (written_unit == "px" and self.unit is not Unit.PIXELS):
            return Rejection.ANOTHER_UNIT
        width, height = self.extent
        left, top, right, bottom = (
            numbers[0] / width,
            numbers[1] / height,
            numbers[2] / width,
            numbers[3] / height,
        )
        if left >= right or top >= bottom:
            return Rejection.REVERSED
        if (
            self.unit is not Unit.UNIT
            and (numbers[2] - numbers[0]) * (numbers[3] - numbers[1]) < SMALLEST_AREA
        ):
            return Rejection.ANOTHER_UNIT
        if right <= 0.0 or bottom <= 0.0:
            return Rejection.NEGATIVE
        if left >= 1.0 or top >= 1.0 or min(left, top) < -OVERSHOOT or max(right, bottom) > 1.0 + OVERSHOOT:
            return Rejection.OUT_OF_PICTURE
        return Box(max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0))

    def from_box(self, box: Box) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as the family writes them: whole numbers (in "unit", decimals).

        Each lies within half a step of the true edge, or within one where a side is too short for the grid and
        is widened to one step.
        """
        steps = 10**UNIT_DECIMALS if self.unit is Unit.UNIT else 1
        width, height = (round(extent * steps) for extent in self.extent)
        left, right = _on_grid(box.left, box.right, width)
        top, bottom = _on_grid(box.top, box.bottom, height)
        if self.unit is Unit.UNIT:
            return left / steps, top / steps, right / steps, bottom / steps
        return left, top, right, bottom


def frame_for(name: str, seen_size: Size) -> Frame:
    """The frame of a model type, or of a unit that a recipe names. Raises RecipeError for another name."""
    if name in UNIT_BY_MODEL_TYPE:
        return Frame.for_model_type(name, seen_size=seen_size)
    return Frame.named(name, seen_size=seen_size)


def _names() -> str:
    return ", ".join(unit.value for unit in Unit)


def _on_grid(low: float, high: float, extent: int) -> tuple[int, int]:
    """Both ends of a side as whole steps of 0..extent, at least one step apart."""
    first, last = round(low * extent), round(high * extent)
    if first < last:
        return first, last
    first = min(math.floor((low + high) / 2 * extent), extent - 1)  # the step that holds the middle
    return first, first + 1
