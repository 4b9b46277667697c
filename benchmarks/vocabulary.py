"""Random models of 10 M parameters with the real vocabulary of 151,936 rows, of both families, for the benchmarks.

The vocabulary is fetched once by `python scripts/engines.py vocabulary`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATIONS = {"tiny-qwen2.5-vl": "2.5", "tiny-internvl3": "internvl"}  # of the packaged model's family
_EVERY = 48  # of the vocabulary's tokens one ends a completion that may end


def build(model: str, folder: Path, *, ends: bool) -> Path:
    """A folder with a random model of the packaged model's family.

    A random model spreads evenly over its vocabulary and would hardly ever end; with `ends` every 48th token does, so that
    completions have 48 tokens in the mean and differ as those of trained models do.
    """
    sys.path[:0] = [str(ROOT / "tests" / "support")]
    import real_vocabulary

    if not real_vocabulary.RANKS.is_file():
        raise SystemExit(
            f"the vocabulary must be there, {real_vocabulary.RANKS} is not; run python scripts/engines.py vocabulary"
        )
    real_vocabulary.build(GENERATIONS[model], folder)
    if ends:
        config = folder / "generation_config.json"
        known = json.loads(config.read_text(encoding="utf-8"))
        ids = known["eos_token_id"]
        known["eos_token_id"] = [*(ids if isinstance(ids, list) else [ids]), *range(300, 151_600, _EVERY)]
        config.write_text(json.dumps(known), encoding="utf-8")
    return folder
