"""What a recipe says of its model: which one, how it is loaded, and the adapters that are trained in its place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from opengrit.core.recipe_section import Count, Positive, RecipeSection

FrameName = Literal["pixels", "thousand", "unit"]

# Which alternative a value means is decided by its shape, so that one mistake gives one message.
Modules = Annotated[
    Annotated[Literal["all-linear"], Tag("[named]")] | Annotated[tuple[str, ...], Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[named]"),
]


class Model(RecipeSection):
    """What is trained or asked. The keys are arguments of `opengrit.models.load`."""

    name: str = Field(min_length=1, description="packaged model, folder, or hub id; no default")
    frame: FrameName | None = Field(
        default=None,
        description="coordinates the model writes; null: by the model type in its config (facts: Qwen, InternVL)",
    )
    min_pixels: Count | None = Field(
        default=None, description="smallest picture the model sees, in pixels; null: the processor's default"
    )
    max_pixels: Count | None = Field(
        default=None, description="largest picture the model sees, in pixels; null: the processor's default"
    )
    max_tiles: Count | None = Field(
        default=None,
        description=(
            "InternVL only: most tiles a picture is cut into, without the thumbnail; null: the processor's default"
        ),
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description=(
            "data type of the weights; null: float32 for training, otherwise the checkpoint's (float32 on a CPU)"
        ),
    )
    quantization: Literal["nf4"] | None = Field(
        default=None,
        description="keep frozen weights in 4 bits (bitsandbytes, double quantization); needs a GPU, and lora to train",
    )

    @model_validator(mode="after")
    def _possible(self) -> Model:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels must be at most max_pixels, got {self.min_pixels} and {self.max_pixels}; lower min_pixels"
            )
        if self.quantization is not None and self.dtype is not None:
            raise ValueError(
                f"a quantized model has no dtype, got {self.quantization} and {self.dtype}; leave one of them out"
            )
        return self


class Lora(RecipeSection):
    """Low-rank adapters; full fine-tuning where the section is null."""

    r: Count = Field(default=16, description="rank of the adapters (our choice; GRIT trains all weights)")
    alpha: Positive = Field(default=32.0, description="scale of the adapters, divided by r (usually twice r)")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="dropout before the adapters (off for RL)"
    )
    target_modules: Modules = Field(
        default="all-linear",
        description="modules that get an adapter, by name (peft's all-linear: every linear layer)",
    )
