"""Whether a model sees the picture: its forward pass takes encoded pictures, and another picture gives other logits."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from PIL import Image

from opengrit.core.errors import ModelError, first_line
from opengrit.models.families import Loaded
from opengrit.sampling import Asked
from opengrit.sampling.kv_cache import Prefix
from opengrit.sampling.transformers_engine import TransformersSampler

_ARGUMENT = "mm_encoder_outputs"
_SIDE = 64  # pixels: a few tokens in each family but those that cut tiles


@torch.no_grad()
def require_sight(loaded: Loaded) -> None:
    """Raise ModelError for a model whose logits do not depend on the picture, or are no numbers.

    A version of transformers that does not know the argument ignores it: the model then answers without seeing the
    picture. Costs two short prompts: a black picture and a chequered one, each by itself.
    """
    forward = type(loaded.base).forward
    if _ARGUMENT not in inspect.signature(forward).parameters:
        import transformers

        raise ModelError(
            f"a model's forward pass must take encoded pictures ({_ARGUMENT}), that of {loaded.name} does not in "
            f"transformers {transformers.__version__}; install transformers>=5.18"
        )
    if any(p.is_meta for p in loaded.model.parameters()):  # the first process has the weights, and looks
        return
    black, chequered = _read(loaded, Image.new("RGB", (_SIDE, _SIDE))), _read(loaded, _chequered())
    if not (torch.isfinite(black.last_logits_UV).all() and torch.isfinite(chequered.last_logits_UV).all()):
        raise ModelError(
            f"a model's logits must be finite, those of {loaded.name} are NaN or infinite; load it with dtype bfloat16 "
            "or float32, or use other weights"
        )
    if all(map(torch.equal, _seen(black), _seen(chequered))):
        raise ModelError(
            f"a model's answer must depend on the picture, {loaded.name} gives the same logits for a black and a "
            "chequered one; check that config.json, weights and processor belong together, and that transformers is "
            "5.18 or newer"
        )


def _seen(prefix: Prefix) -> tuple[torch.Tensor, ...]:
    """What depends on the picture in a model that sees it: the next logits, and what later tokens attend to."""
    last: Any = prefix.cache.layers[-1]
    return prefix.last_logits_UV, last.keys, last.values


def _read(loaded: Loaded, picture: Image.Image) -> Prefix:
    """A question about the picture, read up to the first token of an answer; by a sampler of its own: nothing is kept."""
    sampler = TransformersSampler(loaded)
    try:
        prompt = sampler.prepare(Asked("sight", picture, "What is this?"))
        _require_rows(loaded, max(prompt.ids))
        visual = sampler.encode(loaded.model, [prompt.picture])
        return sampler.prefill([prompt], visual)
    except torch.OutOfMemoryError:
        raise
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        AssertionError,
    ) as error:  # whatever a config of other numbers comes to in another's code
        raise ModelError(
            f"a model must take a question about a picture, {loaded.name} fails ({type(error).__name__}: "
            f"{first_line(error)}); check that config.json, weights and processor belong together"
        ) from error


def _require_rows(loaded: Loaded, token: int) -> None:
    rows = loaded.base.config.get_text_config().vocab_size
    if token >= rows:
        raise ModelError(
            f"a model needs an embedding for each token of its processor, {loaded.name} has {rows} and its processor "
            f"writes token {token}; use the processor that belongs to the model"
        )


def _chequered() -> Image.Image:
    """Black and white fields of a few pixels: other numbers in every patch than in a black picture."""
    fields = Image.new("RGB", (8, 8))
    fields.putdata([(255, 255, 255) if (x + y) % 2 else (0, 0, 0) for y in range(8) for x in range(8)])
    return fields.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
