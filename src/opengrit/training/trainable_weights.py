"""Which weights learn: all of them, all but the vision tower's, or adapters only."""

from __future__ import annotations

from peft import LoraConfig
from torch.nn import Linear

from opengrit.core.errors import RecipeError
from opengrit.models.families import Family, Loaded
from opengrit.models.loading import check_quantization, load_for_training
from opengrit.models.resolve import names_adapter
from opengrit.recipes.model_section import Lora, Model
from opengrit.training.sharding import asks_for_fsdp


def check_model(model: Model, lora: Lora | None) -> None:
    """Raise RecipeError for adapters on an adapter or with FSDP, and for a quantization that is impossible here."""
    if names_adapter(model.name) and lora is not None:
        raise RecipeError(
            f"adapters need a whole model as their base, {model.name} is itself an adapter and the recipe has lora:; "
            "set lora: null to train it further, or name its base under model:"
        )
    if lora is not None and asks_for_fsdp():
        raise RecipeError(
            "adapters need whole weights on every process, got FSDP and lora: in the recipe; use the file that "
            "opengrit recipe copy accelerate/ddp writes"
        )
    check_quantization(model.name, model.quantization)


def load_trainable(model: Model, lora: Lora | None, *, freeze_vision: bool) -> Loaded:
    """The model with the weights that learn marked; the trainers add the adapters."""
    loaded = load_for_training(model)
    check_lora(loaded, lora)
    if freeze_vision:
        freeze_vision_weights(loaded)
    return loaded


def check_lora(loaded: Loaded, lora: Lora | None) -> None:
    """Raise RecipeError where the adapters are for a module that the model does not have."""
    if lora is None or isinstance(lora.target_modules, str):
        return
    names = [name for name, _ in loaded.model.named_modules()]
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            layers = (n for n, module in loaded.model.named_modules() if isinstance(module, Linear))
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise RecipeError(
                f"lora.target_modules names modules of the model, {loaded.name} has no {target!r}; "
                f"its linear layers are {', '.join(known)}"
            )


def lora_config(lora: Lora | None, family: Family, *, freeze_vision: bool) -> LoraConfig | None:
    """The adapters, or None for full fine-tuning; the family says where its vision tower is."""
    if lora is None:
        return None
    targets = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes a float as well
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=family.lora_exclude if freeze_vision else None,
        task_type="CAUSAL_LM",
    )


def freeze_vision_weights(loaded: Loaded) -> None:
    """Keep the vision tower and the projector as they are."""
    for name, parameter in loaded.model.named_parameters():
        if loaded.family.is_vision(name):
            parameter.requires_grad_(False)


def vision_is_fixed(loaded: Loaded) -> bool:
    """Whether no weight of the vision tower or of the projector learns."""
    learning = (name for name, p in loaded.model.named_parameters() if p.requires_grad)
    return not any(map(loaded.family.is_vision, learning))
