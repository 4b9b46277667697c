"""Write what each recipe needs into its head, and the table of all into docs/recipes.md: `python scripts/recipe_memory.py`."""

from __future__ import annotations

import re
from pathlib import Path

from opengrit.doctor.fit import Machine
from opengrit.doctor.recipe_head import BEGIN, END, memory_comment
from opengrit.models.memory_estimate import Sharding
from opengrit.recipes.register import FOLDER, packaged_recipes
from opengrit.recipes.training_recipe import load_recipe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
TABLE_BEGIN, TABLE_END = "<!-- hardware, written by scripts/recipe_memory.py -->", "<!-- end of hardware -->"
_ZERO2 = Machine("5 of 8 devices with 80 GB each, DeepSpeed ZeRO-2", 5, 80, Sharding.ZERO2)
MACHINES = {
    "grit20-qwen2.5-vl-3b.yaml": _ZERO2,
    "grit20-internvl3-2b.yaml": _ZERO2,
    "grit20-qwen2.5-vl-3b-one-80gb.yaml": Machine("one device with 80 GB", 1, 80),
    "grit20-qwen2.5-vl-3b-24gb-lora.yaml": Machine("one device with 24 GB", 1, 24),
    "grit20-qwen2.5-vl-3b-16gb-qlora.yaml": Machine("one device with 16 GB", 1, 16),
    "grit20-internvl3-2b-16gb-lora.yaml": Machine("one device with 16 GB", 1, 16),
    "vllm-server-qwen2.5-vl-3b.yaml": Machine(
        "four devices with 80 GB each, beside the one that answers", 4, 80
    ),
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


def with_hardware(text: str) -> str:
    """The page of recipes with its table of hardware brought up to date."""
    rows = [
        f"| {recipe.hardware} | `{recipe.name}` | {recipe.purpose} | {recipe.memory} | {recipe.disk} | {recipe.time} |"
        for recipe in packaged_recipes()
        if recipe.command == "opengrit train"
    ]
    table = [
        "| hardware | recipe | for | memory a device | disk | time |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return re.sub(
        f"{TABLE_BEGIN}.*?{TABLE_END}", "\n".join([TABLE_BEGIN, *table, TABLE_END]), text, flags=re.DOTALL
    )


def main() -> None:
    for name in MACHINES:
        (FOLDER / name).write_text(with_memory(name), encoding="utf-8")
    PAGE.write_text(with_hardware(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
