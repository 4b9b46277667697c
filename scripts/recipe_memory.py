"""Write each recipe's memory estimate into its head, so that the file says what it needs: `python scripts/recipe_memory.py`."""

from __future__ import annotations

import re

from opengrit.doctor.fit import BEGIN, END, Machine, memory_comment
from opengrit.models.memory_estimate import Sharding
from opengrit.recipes.register import FOLDER
from opengrit.recipes.training_recipe import load_recipe

_ZERO2 = Machine("5 of 8 devices with 80 GB each, DeepSpeed ZeRO-2", 5, 80, Sharding.ZERO2)
MACHINES = {
    "grit20-qwen2.5-vl-3b.yaml": _ZERO2,
    "grit20-internvl3-2b.yaml": _ZERO2,
    "grit20-qwen2.5-vl-3b-one-80gb.yaml": Machine("one device with 80 GB", 1, 80),
    "grit20-qwen2.5-vl-3b-24gb-lora.yaml": Machine("one device with 24 GB", 1, 24),
    "grit20-qwen2.5-vl-3b-16gb-qlora.yaml": Machine("one device with 16 GB", 1, 16),
    "grit20-internvl3-2b-16gb-lora.yaml": Machine("one device with 16 GB", 1, 16),
}
_BLOCK = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)


def with_memory(name: str) -> str:
    """The recipe file's text with its memory lines brought up to date."""
    path = FOLDER / name
    text = path.read_text(encoding="utf-8")
    if not _BLOCK.search(text):
        raise SystemExit(f"{path} has no lines between {BEGIN!r} and {END!r}; put both markers in its head")
    comment = memory_comment(load_recipe(path), MACHINES[name])
    return _BLOCK.sub(lambda _: comment, text, count=1)


def main() -> None:
    for name in MACHINES:
        (FOLDER / name).write_text(with_memory(name), encoding="utf-8")


if __name__ == "__main__":
    main()
