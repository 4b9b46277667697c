"""The attention probe: which tokens it deletes, whose weights it averages, and what it counts as not read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
import torch
from full_record import record_of
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Size
from opengrit.core.errors import RunError
from opengrit.core.types import Example, Finish, Record, Score, Verdict
from opengrit.evaluation.attention import (
    ATTENTION,
    Attended,
    Reading,
    Rethinking,
    Unread,
    attention_scores,
    measure_attention,
    read_attention,
    readings_of,
    rethinking_of,
)
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.judges import RuleJudge
from opengrit.models.attention import Reply, attention_to_picture
from opengrit.models.families import Loaded
from opengrit.reports import build_report
from opengrit.reports.probe_results import read_probe_results
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked
from opengrit.sampling.transformers_engine import TransformersSampler

SIZE = Size(112, 84)
PROTOCOL = EvaluationProtocol("grounded", "qwen2_5_vl", RuleJudge(), Rubric.named("paper"))
# Tags and "yes" are one token each in the tiny vocabulary, all else is one a character.
WRITTEN = "<think>a [1,2,3,4] c</think><rethink>yes [5,6,7,8] no</rethink><answer>"
FAMILIES = [tiny_random.qwen, tiny_random.internvl, tiny_random.qwen3]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    return tiny_random.picture(folder, "p.png", width=SIZE.width, height=SIZE.height)


def record(
    loaded: Loaded, text: str, *, name: str = "a", image: str = "", failure: str | None = None
) -> Record:
    found = record_of(
        Example(name, "How many dogs?", "2", image, "pets", SIZE),
        parse(text, Frame.named("pixels", seen_size=SIZE), Finish.STOP),
        verdict=Verdict(True, 1.0),
        score=Score(1.0),
        frame="qwen2_5_vl",
        failure=failure,
    )
    ids = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return replace(found, completion=replace(found.completion, token_ids=tuple(ids)))


# -- which tokens -----------------------------------------------------------------------------------------------


def test_what_is_deleted_are_the_tokens_of_boxes_before_the_rethinking_or_words_and_never_a_tag() -> None:
    loaded = tiny_random.qwen()
    one = record(loaded, WRITTEN)
    found = rethinking_of(one, loaded.processor.tokenizer)
    assert isinstance(found, Rethinking)
    ids, decode = one.completion.token_ids, loaded.processor.tokenizer.decode
    # <think> is 0, "a" 1, a space 2, the box "[1,2,3,4]" 3 to 11, a space 12, "c" 13, </think> 14, <rethink> 15
    assert found.before == ids[:16]
    assert found.boxes == tuple(range(3, 12))
    assert found.others == (1, 2, 12, 13)
    assert decode(found.tokens) == "yes [5,6,7,8] no"
    readings = readings_of(one, found, seed=1)
    assert decode(readings[Reading.NO_BOXES]) == "<think>a  c</think><rethink>"
    assert decode(readings[Reading.FEWER_WORDS]) == "<think>[1,2,3,4]</think><rethink>"  # all 4 there are
    fewer = readings[Reading.FEWER_BOXES]
    assert len(fewer) == 16 - 4
    assert fewer[:3] == ids[:3]
    assert fewer[-4:] == ids[12:16]
    assert readings_of(one, found, seed=1) == readings
    assert readings_of(one, found, seed=2)[Reading.FEWER_BOXES] != fewer


def test_fifty_tokens_are_measured_and_all_boxes_deleted_where_there_are_more_words() -> None:
    loaded = tiny_random.qwen()
    one = record(loaded, f"<think>{'word ' * 9}[1,2,3,4]</think><rethink>{'x' * 60}</rethink><answer>2")
    found = rethinking_of(one, loaded.processor.tokenizer)
    assert isinstance(found, Rethinking)
    assert len(found.tokens) == 50
    assert found.num_deleted == len(found.boxes) == 9
    readings = readings_of(one, found, seed=1)
    assert readings[Reading.FEWER_BOXES] == readings[Reading.NO_BOXES]
    assert len(readings[Reading.FEWER_WORDS]) == len(readings[Reading.NO_BOXES])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<think>[1,2,3,4]</think><answer>2", Unread.NO_RETHINKING),
        ("<think>[1,2,3,4]</think><rethink></rethink><answer>2", Unread.NO_RETHINKING),
        ("<think>c</think><rethink>[1,2,3,4]</rethink><answer>2", Unread.NO_BOXES),
        ("", Unread.NO_IDS),
    ],
)
def test_an_answer_that_cannot_be_read_says_why(text: str, why: Unread) -> None:
    loaded = tiny_random.qwen()
    assert rethinking_of(record(loaded, text), loaded.processor.tokenizer) is why
    assert rethinking_of(record(loaded, WRITTEN, failure="down"), loaded.processor.tokenizer) is Unread.FAILED


# -- whose weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_that_is_even_gives_the_picture_its_share_of_the_tokens(family, picture: str) -> None:
    loaded = family()
    with torch.no_grad():
        for name, weight in loaded.base.get_decoder().named_parameters():
            if ".q_proj." in name:
                weight.zero_()
    replies = [Reply((5, 6, 7), (8, 9)), Reply((5,), (8,))]
    found = attention_to_picture(TransformersSampler(loaded), Asked("a", picture, "How many dogs?"), replies)
    shown, prompt = found.picture_tokens, found.prompt_tokens
    assert 0 < shown < prompt
    # 8 is written by the token 7, which sees the prompt and 3 tokens; 9 by the token 8, which sees one more.
    expected = (shown / (prompt + 3) + shown / (prompt + 4)) / 2, shown / (prompt + 1)
    for shares, value in zip(found.shares, expected, strict=True):
        layers = loaded.base.get_decoder().config.num_hidden_layers
        assert shares == pytest.approx([value] * layers, abs=1e-6)
    one = Attended("a#0", "pets", "a", "", None, None, 2, 2, 2, 1, shown, prompt, 3, {Reading.WRITTEN: ()})
    assert one.even(Reading.WRITTEN) == pytest.approx(expected[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_average_is_that_of_one_pass_over_the_whole_text_with_all_its_weights(
    family, picture: str
) -> None:
    loaded = family()
    sampler = TransformersSampler(loaded)
    question, reply = Asked("a", picture, "How many dogs?"), Reply((5, 6, 7), (8, 9, 10))
    other = Reply((6,), (11,))
    found = attention_to_picture(sampler, question, [other, reply, other])
    decoder = loaded.base.get_decoder()
    assert decoder.config._attn_implementation == "sdpa"  # as before
    prompt = sampler.prepare(question)
    ids = [*prompt.ids, 5, 6, 7, 8, 9, 10]
    decoder.config._attn_implementation = "eager"
    with torch.no_grad():
        visual = sampler.encode(loaded.model, [prompt.picture])
        positions = loaded.positions(ids, prompt.picture.inputs)[:, None]
        out = loaded.model(
            input_ids=torch.tensor([ids]),
            position_ids=positions if loaded.position_axes > 1 else positions[0],
            mm_encoder_outputs=loaded.encoder_outputs([visual[prompt.picture.key]]),
            output_attentions=True,
        )
    shown = [place for place, token in enumerate(ids) if token == loaded.processor.image_token_id]
    end = len(prompt.ids)
    for layer, weights in enumerate(out.attentions):
        sums = [
            float(weights[0, head, place, shown].sum())
            for head in range(weights.shape[1])
            for place in (end + 2, end + 3, end + 4)  # 7, 8 and 9, which write 8, 9 and 10
        ]
        assert found.shares[1][layer] == pytest.approx(sum(sums) / len(sums), abs=1e-5)
    assert found.shares[0] == found.shares[2] != found.shares[1]


# -- scores -----------------------------------------------------------------------------------------------------


def attended(name: str, **layers: tuple[float, ...]) -> Attended:
    named = {Reading[key]: values for key, values in layers.items()}
    return Attended(
        f"{name}#0",
        "pets",
        name,
        "",
        tokens=10,
        box_tokens=9,
        deleted=4,
        layers=named,
        picture_tokens=8,
        prompt_tokens=20,
        before_tokens=16,
    )


def test_scores_are_exact_on_hand_made_answers() -> None:
    scores = attention_scores(
        [
            # means over the layers: 0.3, 0.2, 0.25, 0.1
            attended(
                "a", WRITTEN=(0.2, 0.4), NO_BOXES=(0.1, 0.3), FEWER_WORDS=(0.2, 0.3), FEWER_BOXES=(0.1, 0.1)
            ),
            replace(attended("b", WRITTEN=(0.5, 0.5), NO_BOXES=(0.2, 0.2)), deleted=0),
            Attended("c#0", "pets", "c", "", unread=Unread.NO_BOXES),
            Attended("d#0", "pets", "d", "", failure="gone"),
        ]
    )
    assert (scores.num_answers, scores.num_read, scores.failed, scores.uncompared) == (4, 2, 1, 1)
    assert scores.unread == {Unread.NO_BOXES: 1}
    assert scores.share[Reading.WRITTEN].value == pytest.approx(0.4)
    assert scores.without_boxes.value == pytest.approx((0.1 + 0.3) / 2)
    assert (scores.without_words.value, scores.without_words.n) == (pytest.approx(0.05), 1)
    assert (scores.boxes_over_words.value, scores.boxes_over_words.n) == (pytest.approx(0.15), 1)
    assert (scores.tokens, scores.box_tokens, scores.deleted) == (10, 9, 4)


# -- asking -----------------------------------------------------------------------------------------------------


def test_what_is_read_is_not_read_again_and_a_failure_is(tmp_path: Path, picture: str) -> None:
    loaded = tiny_random.qwen()
    sampler, out = TransformersSampler(loaded), tmp_path / ATTENTION
    two = [
        record(loaded, WRITTEN, image=picture),
        record(loaded, WRITTEN, name="b", image=str(tmp_path / "b.png")),
    ]
    first = measure_attention(sampler, two, out, protocol=PROTOCOL, quiet=True)
    assert "b.png" in str(first[1].failure)
    assert 0 < first[0].share(Reading.WRITTEN) < 1
    assert first == read_attention(out)
    tiny_random.picture(tmp_path, "b.png", width=SIZE.width, height=SIZE.height)
    second = measure_attention(sampler, two, out, protocol=PROTOCOL, quiet=True)
    assert len(out.read_text().splitlines()) == 3
    assert second[0] == first[0]
    # Another example draws other tokens; all else is the same picture, question and text.
    assert second[1].layers[Reading.NO_BOXES] == pytest.approx(first[0].layers[Reading.NO_BOXES])
    with pytest.raises(RunError, match="another text"):
        measure_attention(sampler, [record(loaded, "<think>", image=picture)], out, protocol=PROTOCOL)
    out.write_text('{"a": 1}\n')
    with pytest.raises(RunError, match="line 1"):
        read_attention(out)


# -- the command ------------------------------------------------------------------------------------------------


def test_the_command_measures_attention_alone_and_the_report_shows_it(tmp_path: Path, picture: str) -> None:
    loaded = tiny_random.internvl()
    model = tiny_random.save(loaded, tmp_path / "model")
    recipe = {"model": {"name": str(model)}, "data": [{"name": "pets"}], "strategy": "grounded"}
    run = RunDir.create(tmp_path / "before", recipe=json.dumps({"evaluate": recipe}))
    with run.append_records() as writer:
        writer.write_record(record(loaded, WRITTEN, image=picture))
        writer.write_record(record(loaded, "<think>", name="b", image=picture))
    arguments = ["probe", str(run.path), "--out", str(tmp_path / "probes"), "--attention", "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "1 of 2 answers are read; not read: 1 without a rethinking." in said
    assert "Necessity" not in said
    assert [one.unread for one in read_attention(tmp_path / "probes" / ATTENTION)] == [
        None,
        Unread.NO_RETHINKING,
    ]
    page = build_report([read_probe_results(RunDir.open(tmp_path / "probes"), "probes")])
    assert "Does it look at the picture while it rethinks?" in page
    assert "Words deleted minus as many" in page
    assert "Attention to the picture while rethinking" in page  # the figure
    assert "Necessity" not in page


def test_the_attention_of_a_served_model_is_refused_with_a_remedy(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "3b"},
        "data": [{"name": "pets"}],
        "endpoint": {"url": "http://127.0.0.1:1/v1", "frame": "qwen2_5_vl"},
    }
    run = RunDir.create(tmp_path / "before", recipe=json.dumps({"evaluate": recipe}))
    with run.append_records() as writer:
        writer.write_record(record(tiny_random.qwen(), WRITTEN))
    result = CliRunner().invoke(app, ["probe", str(run.path), "--out", str(tmp_path / "p"), "--attention"])
    assert result.exit_code == 2
    assert "opengrit eval --model" in " ".join(result.output.split())
    assert not (tmp_path / "p").exists()
