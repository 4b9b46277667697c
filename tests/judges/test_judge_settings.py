from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from fault_server import fault_server
from pydantic import BaseModel, BeforeValidator, ValidationError

from opengrit.core.types import Verdict
from opengrit.judges import RuleJudge
from opengrit.judges.cache import CachedJudge
from opengrit.judges.settings import JudgeSection, judge_section, open_judge

ENDPOINT = {"kind": "endpoint", "model": "m", "url": "http://127.0.0.1:8000/v1"}


class Recipe(BaseModel):
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = JudgeSection()


def test_the_rule_is_the_default_and_a_bare_name_stands_for_a_kind() -> None:
    assert Recipe().judge.kind == "rule"
    assert Recipe.model_validate({"judge": "rule"}) == Recipe()
    assert Recipe.model_validate(Recipe().model_dump(mode="json")) == Recipe()
    with open_judge(JudgeSection()) as judge:
        assert judge == RuleJudge()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("endpoint", "has a model"),
        ({"kind": "endpoint", "model": "m"}, "has a url"),
        ({"kind": "local"}, "has a model"),
        ({"kind": "rule", "url": "http://h/v1", "model": "m"}, "the rule takes no model, url"),
        ({**ENDPOINT, "url": "h:8000"}, "http or https"),
        ({**ENDPOINT, "url": "http://me:hush@h/v1"}, "without user"),
        ({**ENDPOINT, "api_key": "sk-1"}, "extra"),
        ({**ENDPOINT, "correct_from": 0}, "greater than 0"),
        ({**ENDPOINT, "min_judged_share": 1.5}, "less than or equal to 1"),
        ({**ENDPOINT, "requests_per_minute": True}, "no true or false"),
        ({**ENDPOINT, "timeout_seconds": float("nan")}, "finite"),
        ({"kind": "oracle"}, "rule"),
    ],
)
def test_an_impossible_section_is_refused(section: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"judge": section})


def test_a_section_opens_the_judge_it_describes(tmp_path: Path) -> None:
    with fault_server() as server:
        section = JudgeSection(kind="endpoint", model="m", url=server.url, cache=str(tmp_path / "c"))
        with open_judge(section) as judge:
            assert isinstance(judge, CachedJudge)
            assert judge.judge("q", expected="2", given="2") == Verdict(True, 1.0, "endpoint:m")
    assert (tmp_path / "c").stat().st_size > 0


def test_a_recipe_with_the_rule_loads_no_client_and_no_model() -> None:
    script = (
        "import sys\n"
        "from opengrit.judges.settings import JudgeSection, open_judge\n"
        "with open_judge(JudgeSection()) as judge:\n"
        "    judge.judge('q', expected='2', given='2')\n"
        "print(sorted({'openai', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
