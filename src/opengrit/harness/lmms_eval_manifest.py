"""How lmms-eval finds our model: the entry point of the group `lmms_eval.models` names `manifest`."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """lmms-eval's description of the model `opengrit`; the model itself is imported when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="opengrit", chat_class_path="opengrit.harness.lmms_eval_model.GrounderModel"
    )
