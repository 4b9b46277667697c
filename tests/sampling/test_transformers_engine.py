"""The transformers sampler says what `generate` says, with each picture and each prompt done once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_random
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from opengrit.core.boxes import Size
from opengrit.core.types import Completion, Finish
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.detokenizing import StopFinder
from opengrit.sampling.replay import ReplaySampler
from opengrit.sampling.transformers_engine import TransformersSampler

FAMILIES = [tiny_random.qwen, tiny_random.internvl]
GREEDY = SamplingSettings(temperature=0, max_new_tokens=16, stop=())


@pytest.fixture
def questions(tmp_path):
    """Three questions of different lengths about pictures of different sizes."""
    sizes = [(112, 84), (60, 112), (140, 140)]
    paths = [
        tiny_random.picture(tmp_path, f"{i}.png", width=w, height=h, seed=i) for i, (w, h) in enumerate(sizes)
    ]
    texts = ["How many dogs?", "How many dogs are there in the picture?", "yes"]
    return [Asked(f"q{i}", path, text) for i, (path, text) in enumerate(zip(paths, texts, strict=True))]


def inputs_of(loaded, question):
    """The processor's own output for one question, as transformers' documentation makes it."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
    text = loaded.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return loaded.processor(images=[[Image.open(question.image)]], text=[text], return_tensors="pt")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_completions_are_those_of_generate(family, questions):
    loaded = family()
    groups = TransformersSampler(loaded).sample(questions, samples_per_question=2, settings=GREEDY)
    for question, group in zip(questions, groups, strict=True):
        made = inputs_of(loaded, question)
        whole = loaded.model.generate(
            **made, max_new_tokens=16, do_sample=False, suppress_tokens=list(loaded.forbidden_ids)
        )
        expected = tuple(whole[0, made["input_ids"].shape[1] :].tolist())
        assert [s.completion.token_ids for s in group] == [expected, expected]
        assert group[0].prompt_ids == tuple(made["input_ids"][0].tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_picture_is_encoded_once_and_each_prompt_read_once(family, questions):
    sampler = TransformersSampler(family())
    same_picture = Asked("q3", questions[0].image, "no")
    groups = sampler.sample(
        [*questions, same_picture], samples_per_question=4, settings=replace(GREEDY, max_new_tokens=5)
    )
    assert sampler.counts.pictures_prepared == 3
    assert sampler.counts.pictures_encoded == 3
    assert sampler.counts.prompt_tokens == sum(len(group[0].prompt_ids) for group in groups)
    written = [len(s.completion.token_ids) for group in groups for s in group]
    assert written == [5] * 16
    assert sampler.counts.decode_tokens == 16 * 4  # the first of five tokens comes with the prompt


def test_a_picture_already_seen_is_not_prepared_again_but_is_encoded_with_the_new_weights(questions):
    loaded = tiny_random.qwen()
    sampler = TransformersSampler(loaded)
    before = sampler.sample(questions, samples_per_question=1, settings=GREEDY)
    with torch.no_grad():
        loaded.model.model.visual.merger.mlp[2].weight.mul_(-1)
    after = sampler.sample(questions, samples_per_question=1, settings=GREEDY)
    assert sampler.counts.pictures_prepared == 3
    assert sampler.counts.pictures_encoded == 6
    assert before != after


def test_encodings_are_kept_where_the_vision_is_fixed(questions):
    sampler = TransformersSampler(tiny_random.internvl(), vision_is_fixed=True)
    first = sampler.sample(questions, samples_per_question=1, settings=GREEDY)
    assert sampler.sample(questions, samples_per_question=1, settings=GREEDY) == first
    assert sampler.counts.pictures_encoded == 3


@pytest.mark.parametrize("rows_per_batch", [1, 2, 5])
def test_the_batch_size_does_not_change_greedy_completions(rows_per_batch, questions):
    loaded = tiny_random.qwen()
    one = TransformersSampler(loaded, rows_per_batch=rows_per_batch).sample(
        questions, samples_per_question=2, settings=GREEDY
    )
    assert one == TransformersSampler(loaded).sample(questions, samples_per_question=2, settings=GREEDY)


def test_a_row_that_writes_an_end_token_leaves_the_batch_and_keeps_the_token_but_not_its_text(questions):
    loaded = tiny_random.qwen()
    free = TransformersSampler(loaded).sample(questions, samples_per_question=1, settings=GREEDY)
    ids = free[0][0].completion.token_ids
    end = ids[4]
    sampler = TransformersSampler(replace(loaded, end_ids=(end,)))
    groups = sampler.sample(questions, samples_per_question=1, settings=GREEDY)
    stopped = groups[0][0].completion
    assert stopped.finish is Finish.EOS
    assert stopped.token_ids == ids[: ids.index(end) + 1]
    assert stopped.text == loaded.processor.tokenizer.decode(stopped.token_ids[:-1])
    lengths = [len(group[0].completion.token_ids) for group in groups]
    assert sampler.counts.decode_tokens == sum(length - 1 for length in lengths)


def test_a_stop_string_over_several_tokens_ends_the_completion_where_it_is_written(questions):
    loaded = tiny_random.qwen()
    tokenizer = loaded.processor.tokenizer
    free = TransformersSampler(loaded).sample(questions, samples_per_question=1, settings=GREEDY)
    ids = free[0][0].completion.token_ids
    pairs = [i for i in range(1, 15) if tokenizer.decode(ids[i : i + 2]).isascii()]
    place = pairs[0]  # the first two tokens in a row that are plain characters
    stop = tokenizer.decode(ids[place : place + 2])
    (group,) = TransformersSampler(loaded).sample(
        questions[:1], samples_per_question=1, settings=replace(GREEDY, stop=(stop,))
    )
    assert group[0].completion.finish is Finish.STOP
    assert group[0].completion.token_ids == ids[: place + 2]
    assert group[0].completion.text.endswith(stop)


def test_a_stop_string_is_complete_at_its_last_character_and_no_earlier():
    tokenizer = tiny_random.qwen().processor.tokenizer
    finder = StopFinder(tokenizer, ["</answer>"])
    ids = tokenizer("<answer>yes</answer>")["input_ids"]
    assert len(ids) > 9  # "</answer>" is no token of this vocabulary
    assert finder.completes(ids)
    assert not any(finder.completes(ids[:end]) for end in range(1, len(ids)))
    assert [finder.may_complete(i) for i in ids[-2:]] == [False, True]  # "r" ends no stop string, ">" can
    assert finder.cut("<answer>yes</answer> and more") == "<answer>yes</answer>"


def test_a_stop_string_that_ends_in_a_line_break_or_a_space_is_found():
    words = ["done", "\n", "\n\n", "x", " ", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.decoder = decoders.Fuse()  # tokens are put together as they are
    finder = StopFinder(PreTrainedTokenizerFast(tokenizer_object=inner), ["done\n", "\n\n", "x "])

    def found(*tokens: str) -> list[bool]:
        ids = [words.index(token) for token in tokens]
        return [
            finder.may_complete(ids[end - 1]) and finder.completes(ids[:end])
            for end in range(1, len(ids) + 1)
        ]

    assert found("x", "done", "\n") == [False, False, True]
    assert found("x", "\n", "x", "\n", "\n") == [False] * 4 + [True]
    assert found("x", "\n\n") == [False, True]
    assert found("done", " ", "x", " ") == [False, False, False, True]


def test_a_stop_string_is_found_where_a_token_alone_loses_its_leading_space():
    words = ["\u2581the", "\u2581end", "\u2581", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert (tokenizer.decode([1]), tokenizer.decode([0, 1])) == ("end", "the end")
    finder = StopFinder(tokenizer, ["the "])
    assert finder.may_complete(1)
    assert finder.completes([0, 1])


def test_text_after_the_stop_string_in_the_same_token_is_cut_and_the_token_is_kept():
    tokenizer = tiny_random.qwen().processor.tokenizer
    tokenizer.add_tokens(["r>\n\n"])
    finder = StopFinder(tokenizer, ["</answer>"])
    glued = tokenizer.convert_tokens_to_ids("r>\n\n")
    ids = [*tokenizer("no</answe")["input_ids"], glued]
    assert finder.may_complete(glued)
    assert finder.completes(ids)
    assert finder.cut(tokenizer.decode(ids)) == "no</answer>"


def test_picture_tokens_are_never_sampled(questions):
    loaded = tiny_random.qwen()
    hot = SamplingSettings(temperature=50.0, max_new_tokens=60, stop=(), seed=1)
    groups = TransformersSampler(loaded).sample(questions, samples_per_question=8, settings=hot)
    written = {token for group in groups for s in group for token in s.completion.token_ids}
    assert len(written) > 200  # nearly uniform over some 275 tokens
    assert not written & set(loaded.forbidden_ids)
    assert loaded.processor.image_token_id in loaded.forbidden_ids


def test_the_same_seed_gives_the_same_completions_and_another_seed_others(questions):
    sampler = TransformersSampler(tiny_random.qwen())
    settings = SamplingSettings(temperature=1.0, max_new_tokens=12, stop=(), seed=7)
    first = sampler.sample(questions, samples_per_question=3, settings=settings)
    assert sampler.sample(questions, samples_per_question=3, settings=settings) == first
    assert sampler.sample(questions, samples_per_question=3, settings=replace(settings, seed=8)) != first
    assert len({s.completion.token_ids for s in first[0]}) > 1


def test_an_unreadable_picture_is_a_failure_with_a_reason_and_holds_up_nobody(questions, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    asked = [
        questions[0],
        Asked("b", str(tmp_path / "broken.png"), "yes"),
        Asked("m", str(tmp_path / "none.png"), "no"),
    ]
    groups = TransformersSampler(tiny_random.qwen()).sample(asked, samples_per_question=2, settings=GREEDY)
    assert [isinstance(s, Sampled) for s in groups[0]] == [True, True]
    assert [isinstance(s, Unsampled) for s in groups[1] + groups[2]] == [True] * 4
    assert "broken.png" in groups[1][0].reason
    assert "none.png" in groups[2][0].reason


def test_a_question_that_smuggles_a_picture_token_is_refused(questions):
    loaded = tiny_random.qwen()
    smuggler = Asked("s", questions[0].image, f"yes {loaded.processor.image_token} no")
    ((outcome,),) = TransformersSampler(loaded).sample([smuggler], samples_per_question=1, settings=GREEDY)
    assert isinstance(outcome, Unsampled)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingSettings(**wrong)


def test_the_replay_sampler_gives_what_was_recorded_and_says_what_was_not():
    recorded = Completion("<answer>2", (1, 2), Finish.EOS)
    sampler = ReplaySampler({"a": [recorded]}, seen_size=Size(56, 28))
    groups = sampler.sample(
        [Asked("a", "a.png", "?"), Asked("b", "b.png", "?")],
        samples_per_question=2,
        settings=SamplingSettings(),
    )
    assert groups[0][0] == Sampled(recorded, prompt_ids=(), seen_size=Size(56, 28))
    assert isinstance(groups[0][1], Unsampled)
    assert [isinstance(s, Unsampled) for s in groups[1]] == [True, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_encodings_of_a_fixed_tower_are_kept_no_longer_than_their_pictures(tmp_path, family):
    sampler = TransformersSampler(family(), vision_is_fixed=True, kept_bytes=1)
    asked = [Asked(e.id, e.image, e.question) for e in tiny_random.examples(tmp_path, 3)]
    settings = SamplingSettings(temperature=0, max_new_tokens=2)
    for _ in range(2):
        sampler.sample(asked, samples_per_question=1, settings=settings)
    assert len(sampler._encoded) <= len(sampler._prepared) == 1
