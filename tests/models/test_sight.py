"""A model that does not see the picture is refused when it is loaded, whatever keeps the picture from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_random
import torch

from opengrit.core.errors import ModelError
from opengrit.models import load
from opengrit.models.families import Loaded
from opengrit.models.sight import require_sight

FAMILIES = {
    "Qwen2-VL": tiny_random.qwen2,
    "Qwen2.5-VL": tiny_random.qwen,
    "Qwen3-VL": tiny_random.qwen3,
    "Qwen3-VL-MoE": tiny_random.qwen3_moe,
    "InternVL3": tiny_random.internvl3,
    "InternVL3.5": tiny_random.internvl35,
}


def as_in_5_17(loaded: Loaded, *, names_it: bool) -> Loaded:
    """Its forward pass swallows encoded pictures, as that of transformers 5.17 does; or has the name and does nothing."""
    kind: Any = type(loaded.model)

    class Blind(kind):
        def forward(self, input_ids: Any = None, mm_encoder_outputs: Any = None, **kwargs: Any) -> Any:
            return super().forward(input_ids=input_ids, **kwargs)

    class Swallowing(kind):
        def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
            kwargs.pop("mm_encoder_outputs", None)
            return super().forward(input_ids=input_ids, **kwargs)

    loaded.model.__class__ = Blind if names_it else Swallowing
    return loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_sees_is_taken_and_one_that_does_not_is_an_error(family: str) -> None:
    require_sight(FAMILIES[family]())
    with pytest.raises(
        ModelError,
        match=r"must take encoded pictures .* does not in transformers .*install transformers>=5\.18",
    ):
        require_sight(as_in_5_17(FAMILIES[family](), names_it=False))
    with pytest.raises(ModelError, match=r"random-.* gives the same logits for a black and a chequered one"):
        require_sight(as_in_5_17(FAMILIES[family](), names_it=True))


def test_a_tower_that_says_the_same_of_every_picture_is_refused_by_load(tmp_path: Path) -> None:
    loaded = tiny_random.qwen()
    with torch.no_grad():
        loaded.model.model.visual.merger.mlp[2].weight.zero_()
    with pytest.raises(ModelError, match="the same logits"):
        load(str(tiny_random.save(loaded, tmp_path / "blind")))


def test_logits_that_are_no_numbers_are_refused_by_load(tmp_path: Path) -> None:
    """Every weight is a finite number; what they come to is none."""
    loaded = tiny_random.qwen()
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(3e38)
    with pytest.raises(ModelError, match="are NaN or infinite"):
        load(str(tiny_random.save(loaded, tmp_path / "loud")))


def test_a_processor_of_another_vocabulary_is_refused_with_the_token() -> None:
    loaded = tiny_random.qwen()
    loaded.processor.tokenizer.add_tokens(["What is"])
    with pytest.raises(ModelError, match=r"has 274 and its processor writes token 274; use the processor"):
        require_sight(loaded)


def test_a_forward_pass_that_fails_is_told_as_the_models_fault() -> None:
    loaded = tiny_random.qwen()
    del loaded.model.model.language_model.layers[1].mlp
    with pytest.raises(ModelError, match=r"random-qwen fails \(AttributeError: .*mlp"):
        require_sight(replace(loaded))
