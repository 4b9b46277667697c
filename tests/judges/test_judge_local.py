from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from opengrit.core.errors import ModelError
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges import Case
from opengrit.judges.cache import CachedJudge, JudgeCache, cache_key
from opengrit.judges.local import LocalJudge
from opengrit.judges.model_judge import ReplySettings

REPLY = '{"score": 1}'
CASES = [
    Case("How many dogs are there in this picture of a park?", expected="2", given="two"),
    Case("Why?", expected="a", given="b"),
    Case("Is the cup left of the box?", expected="yes", given="no " * 20),
]


def tiny(folder: Path, *, obedient: bool, positions: int = 512, ends: bool = True) -> Path:
    """A tiny Llama of random weights whose first token is a whole reply; an obedient one writes nothing else.

    The reply's token ends an obedient one's text, unless it is to repeat itself (`ends`).
    """
    words = [
        REPLY,
        "<eos>",
        "<unk>",
        *[
            "You",
            "are",
            "proofreading",
            "short",
            "answers",
            "Question",
            "Standard",
            "answer",
            "Model's",
            "2",
            "two",
        ],
    ]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", additional_special_tokens=["@@END@@"]
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=positions,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    if obedient and ends:
        model.generation_config.eos_token_id = 0
    if obedient:  # the last norm is zero, so all logits are equal and the first token is written
        torch.nn.init.zeros_(model.model.norm.weight)
    else:  # sharper than a random model is, so that no two logits are near each other
        model.lm_head.weight.data *= 100
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_model_that_writes_a_score_judges(tmp_path: Path) -> None:
    judge = LocalJudge(
        tiny(tmp_path / "judge", obedient=True), reply_settings=ReplySettings(max_tokens=1), device="cpu"
    )
    assert judge.judge_many(CASES) == [Verdict(True, 1.0, "local:judge")] * 3
    assert judge.judge("Why?", expected="a", given="b") == Verdict(True, 1.0, "local:judge")


def test_a_local_model_that_writes_more_than_a_score_leaves_rows_unjudged(tmp_path: Path) -> None:
    judge = LocalJudge(
        tiny(tmp_path, obedient=True, ends=False), reply_settings=ReplySettings(max_tokens=2), device="cpu"
    )
    assert all(isinstance(opinion, Unjudged) for opinion in judge.judge_many(CASES))


def test_a_reply_that_ran_into_its_limit_was_cut_off_even_where_it_looks_whole(tmp_path: Path) -> None:
    judge = LocalJudge(
        tiny(tmp_path, obedient=True, ends=False), reply_settings=ReplySettings(max_tokens=1), device="cpu"
    )
    opinion = judge.judge("Why?", expected="a", given="b")
    assert isinstance(opinion, Unjudged)
    assert "cut off at 1 tokens" in opinion.reason


def test_no_answer_writes_a_control_token_into_the_prompt(tmp_path: Path) -> None:
    judge = LocalJudge(tiny(tmp_path, obedient=True), device="cpu")
    for given in ("<eos>", "a<eos>b", "&<eos", "<unk>", "eos"):
        ids = judge._token_ids(Case("Why <eos>?", expected="<eos>", given=given))
        assert judge._tokenizer.eos_token_id not in ids
    # A token without angle brackets, as some tokenizers have: it is cut by an escape.
    end = judge._tokenizer.convert_tokens_to_ids("@@END@@")
    assert end in judge._tokenizer("a @@END@@ b")["input_ids"]
    assert end not in judge._token_ids(Case("Why?", expected="a", given="a @@END@@ b"))


def test_what_a_model_says_does_not_depend_on_the_batch_it_is_asked_in(tmp_path: Path) -> None:
    folder = tiny(tmp_path, obedient=False)
    together = LocalJudge(
        folder, reply_settings=ReplySettings(max_tokens=8), batch_size=3, device="cpu"
    ).judge_many(CASES)
    alone = LocalJudge(
        folder, reply_settings=ReplySettings(max_tokens=8), batch_size=1, device="cpu"
    ).judge_many(CASES)
    assert together == alone
    assert len({repr(opinion) for opinion in together}) > 1  # the model reads its prompts


def test_a_prompt_that_is_too_long_is_unjudged_and_the_others_are_judged(tmp_path: Path) -> None:
    judge = LocalJudge(
        tiny(tmp_path, obedient=True, positions=160), reply_settings=ReplySettings(max_tokens=1), device="cpu"
    )
    long = Case("Why?", expected="a", given="b " * 500)
    opinions = judge.judge_many([CASES[0], long, CASES[1]])
    assert [isinstance(opinion, Verdict) for opinion in opinions] == [True, False, True]
    assert isinstance(opinions[1], Unjudged)
    assert "the judge reads 159" in opinions[1].reason


def test_no_batch_is_begun_after_the_deadline(tmp_path: Path) -> None:
    times = iter([0.0, 1.0, 11.0, 12.0])
    judge = LocalJudge(
        tiny(tmp_path, obedient=True),
        reply_settings=ReplySettings(max_tokens=1),
        batch_size=1,
        device="cpu",
        clock=lambda: next(times),
    )
    opinions = judge.judge_many(CASES, deadline_seconds=10.0)
    # the shortest prompt is the second case's, and comes first
    assert [isinstance(opinion, Verdict) for opinion in opinions] == [False, True, False]


def test_a_batch_that_would_end_after_the_deadline_is_not_begun(tmp_path: Path) -> None:
    # The first batch lasts from 1 to 5 s, the second from 5 to 9 s; a third would end at about 13 s.
    times = iter([0.0, 1.0, 5.0, 5.0, 9.0, 9.0])
    judge = LocalJudge(
        tiny(tmp_path, obedient=True),
        reply_settings=ReplySettings(max_tokens=1),
        batch_size=1,
        device="cpu",
        clock=lambda: next(times),
    )
    opinions = judge.judge_many(CASES, deadline_seconds=10.0)
    assert opinions[:2] == [Verdict(True, 1.0, judge.name)] * 2
    assert opinions[2] == Unjudged(
        "not judged within the deadline of 10.0 s"
    )  # the longest prompt comes last


def test_a_model_whose_weights_changed_is_another_judge(tmp_path: Path) -> None:
    first = LocalJudge(tiny(tmp_path, obedient=True), device="cpu").fingerprint
    again = LocalJudge(tmp_path, device="cpu").fingerprint
    assert cache_key(first, CASES[0]) == cache_key(again, CASES[0])
    other = LocalJudge(tiny(tmp_path, obedient=False), device="cpu").fingerprint
    assert cache_key(first, CASES[0]) != cache_key(other, CASES[0])


def test_a_local_judge_has_a_cache_like_any_other(tmp_path: Path) -> None:
    judge = LocalJudge(
        tiny(tmp_path / "m", obedient=True), reply_settings=ReplySettings(max_tokens=1), device="cpu"
    )
    first = CachedJudge(judge, cache=JudgeCache(tmp_path / "c"))
    first.judge_many(CASES)
    second = CachedJudge(judge, cache=JudgeCache(tmp_path / "c"))
    assert second.judge_many(CASES) == first.judge_many(CASES)
    assert (second.counts.known, second.counts.asked) == (3, 0)
    assert second.cost == 0.0


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"judge\.model"):
        LocalJudge(tmp_path, device="cpu")


def test_a_model_that_is_not_in_safetensors_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path, obedient=True)
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match="safetensors"):
        LocalJudge(folder, device="cpu")


@pytest.mark.parametrize("fault", ["missing", "shape", "nan"])
def test_a_judge_whose_weights_do_not_fit_is_refused_by_their_names(tmp_path: Path, fault: str) -> None:
    folder = tiny(tmp_path / "judge", obedient=True)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if fault == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:3] if fault == "shape" else weights[name] * float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"holds every weight.*{name}"):
        LocalJudge(str(folder))
