"""A continuous batch samples each completion as alone, exactly, streams it piece by piece, and does no work twice."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import tiny_random
import torch
from PIL import Image
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from opengrit.core.types import Completion, Finish
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.continuous_batch import ContinuousBatch
from opengrit.sampling.detokenizing import IncrementalDetokenizer, StopFinder
from opengrit.sampling.kv_buffers import compacted
from opengrit.sampling.replay import ReplaySampler
from opengrit.sampling.token_sampling import RandomStream, sample_tokens
from opengrit.sampling.transformers_engine import TransformersSampler

FAMILIES = {"qwen": tiny_random.qwen, "internvl": tiny_random.internvl}
GREEDY = SamplingSettings(temperature=0, max_new_tokens=12, stop=())
WARM = SamplingSettings(temperature=1.0, max_new_tokens=20, stop=(), seed=3)
HOT = replace(
    WARM, temperature=50.0, max_new_tokens=60
)  # nearly uniform over some 275 tokens, of which two end it
SIZES = [(112, 84), (60, 112), (140, 140), (84, 84), (112, 56)]
TEXTS = [
    "How many dogs?",
    "How many dogs are there in the picture?",
    "yes",
    "no dogs",
    "Is it yes or no? Think.",
]


@pytest.fixture(scope="module", params=list(FAMILIES))
def loaded(request):
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Five questions of different lengths about pictures of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [
        tiny_random.picture(folder, f"{i}.png", width=w, height=h, seed=i) for i, (w, h) in enumerate(SIZES)
    ]
    return [Asked(f"q{i}", path, text) for i, (path, text) in enumerate(zip(paths, TEXTS, strict=True))]


def sampled(loaded, questions, settings, *, samples=1, **how):
    return TransformersSampler(loaded, **how).sample(
        questions, samples_per_question=samples, settings=settings
    )


def ids(groups):
    return [[s.completion.token_ids for s in group] for group in groups]


@contextmanager
def hooked(loaded):
    """Puts a hook on one layer of the model, which only the model's own forward calls."""
    hook = loaded.base.model.language_model.layers[0].register_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def generated(loaded, questions):
    """What `model.generate` says to each question asked alone."""
    said = []
    for question in questions:
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        made = loaded.processor(
            images=[[Image.open(question.image)]],
            text=[loaded.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)],
            return_tensors="pt",
        )
        whole = loaded.model.generate(
            **made, max_new_tokens=12, do_sample=False, suppress_tokens=list(loaded.forbidden_ids)
        )
        said.append(tuple(whole[0, made["input_ids"].shape[1] :].tolist()))
    return said


# -- exactness --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize("asked", [1, 2, 5])
def test_greedy_tokens_are_those_of_generate_row_by_row(loaded, questions, generated, asked, group):
    written = ids(sampled(loaded, questions[:asked], GREEDY, samples=group))
    assert written == [[expected] * group for expected in generated[:asked]]
    assert asked < 5 or len({row[0] for row in written}) > 2  # the questions differ


def test_a_model_that_cannot_share_prompts_writes_the_same_and_says_so_once(loaded, questions, caplog):
    shared = [sampled(loaded, questions, settings, samples=2) for settings in (GREEDY, WARM)]
    with hooked(loaded), caplog.at_level(logging.INFO, logger="opengrit"):
        sampler = TransformersSampler(loaded)
        copied = [
            sampler.sample(questions, samples_per_question=2, settings=settings)
            for settings in (GREEDY, WARM)
        ]
    assert copied == shared
    (pieces,) = [r.getMessage() for r in caplog.records if "not shared" in r.getMessage()]
    assert "DecoderLayer has hooks" in pieces


@pytest.mark.parametrize("copied", [False, True])
def test_questions_that_join_and_leave_a_running_batch_get_the_completions_they_get_alone(
    loaded, questions, copied
):
    alone = sampled(loaded, questions, WARM, samples=3)
    with hooked(loaded) if copied else nullcontext():
        batch = ContinuousBatch(TransformersSampler(loaded))
        done: dict[tuple[int, int], Sampled] = {}

        def steps(count):
            for _ in range(count):
                for wrote in batch.step():
                    if wrote.done is not None:
                        done[wrote.handle, wrote.sample] = wrote.done

        handles = batch.admit(questions[:1], [WARM], samples_per_question=3)
        steps(4)
        handles += batch.admit(questions[1:3], [WARM] * 2, samples_per_question=3)
        assert batch.live == 9 - len(done)
        steps(5)
        batch.drop(handles[1])
        left = len([key for key in done if key[0] != handles[1]])
        assert batch.live == 6 - left
        handles += batch.admit(questions[3:], [WARM] * 2, samples_per_question=3)
        steps(30)
        assert batch.live == 0
        assert batch.step() == []
        for place, handle in enumerate(handles):
            if place == 1:
                assert all(
                    step_done == alone[1][key[1]] for key, step_done in done.items() if key[0] == handle
                )
            else:
                assert [done[handle, sample] for sample in range(3)] == alone[place]
        again = batch.admit(questions[1:2], [WARM], samples_per_question=3)  # an empty batch starts afresh
        steps(20)
        assert [done[again[0], sample] for sample in range(3)] == alone[1]


def test_a_batch_that_is_never_empty_runs_on_without_holding_what_has_left(loaded, questions):
    alone = sampled(loaded, questions, WARM)
    batch = ContinuousBatch(TransformersSampler(loaded))
    waiting = [place for _ in range(4) for place in range(5)]
    places: dict[int, int] = {}
    done: dict[int, Sampled] = {}
    steps = 0
    while waiting or batch.live:
        if waiting and steps % 7 == 0:
            place = waiting.pop()
            (handle,) = batch.admit([questions[place]], [WARM])
            places[handle] = place
        done |= {wrote.handle: wrote.done for wrote in batch.step() if wrote.done is not None}
        steps += 1
    assert steps > 130  # many times what one completion takes
    assert {handle: alone[place][0] for handle, place in places.items()} == done
    # The buffers of a batch grow by 32 columns at a time, and 20 tokens are all that a row ever holds.
    held = TransformersSampler(loaded)
    running = ContinuousBatch(held)
    running.admit(questions[:1], [WARM])
    widest = 0
    for step in range(120):
        if step % 7 == 0:
            running.admit(questions[:1], [WARM])
        running.step()
        own = running._kv_cache._own[0]
        widest = max(widest, len(own.keys))
    assert widest <= 128


@pytest.mark.parametrize("whole", [True, False])
def test_half_precision_decodes_as_the_models_own_forward_does(questions, whole):
    """Weights in bfloat16, or full weights under autocast: the first tokens are those of the copying way."""
    loaded = tiny_random.qwen(seed=1)
    if whole:
        loaded = replace(loaded, model=loaded.model.to(torch.bfloat16))
    with nullcontext() if whole else torch.autocast("cpu", dtype=torch.bfloat16):
        shared = sampled(loaded, questions, replace(GREEDY, max_new_tokens=2), samples=2)
        with hooked(loaded):
            copied = sampled(loaded, questions, replace(GREEDY, max_new_tokens=2), samples=2)
    assert shared == copied


def test_rows_that_stay_move_as_little_as_possible():
    assert compacted([0, 1, 2]) == [0, 1, 2]
    assert compacted([1, 3, 4]) == [4, 1, 3]  # rows 3 and 4 take the places 0 and 2
    assert compacted([]) == []


# -- settings and random numbers --------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_what_else_is_asked(loaded, questions):
    together = sampled(loaded, questions, WARM, samples=4)
    assert sampled(loaded, questions[2:3], WARM, samples=4) == together[2:3]
    assert sampled(loaded, questions[::-1], WARM, samples=4) == together[::-1]
    assert sampled(loaded, questions, WARM, samples=2) == [group[:2] for group in together]
    assert sampled(loaded, questions, WARM, samples=4, rows_per_batch=6) == together


def test_a_question_asked_twice_in_one_call_is_sampled_anew(loaded, questions):
    first, second = sampled(loaded, [questions[0]] * 2, HOT, samples=3)
    assert not set(ids([first])[0]) & set(ids([second])[0])
    assert sampled(loaded, [questions[0]], HOT, samples=3) == [first]


def test_each_question_has_its_own_settings(loaded, questions):
    own = [
        GREEDY,
        WARM,
        replace(WARM, seed=4, max_new_tokens=5),
        replace(HOT, top_k=1),
        replace(WARM, top_p=0.5, temperature=0.7),
    ]
    together = sampled(loaded, questions, own, samples=2)
    for place, settings in enumerate(own):
        assert (
            sampled(loaded, questions[place : place + 1], settings, samples=2) == together[place : place + 1]
        )
    assert {len(i) for i in ids(together)[2]} <= set(range(1, 6))
    with pytest.raises(ValueError, match="2 for 5 questions"):
        sampled(loaded, questions, own[:2])


def test_the_random_numbers_of_a_completion_are_its_own():
    def first(*args, **how):
        stream = RandomStream(*args, **how)
        return [stream.next() for _ in range(200)]

    known = first(0, "q", 0)
    assert first(0, "q", 0) == known
    assert all(0 <= n < 1 for n in known)
    others = [first(1, "q", 0), first(0, "r", 0), first(0, "q", 1), first(0, "q", 0, repeat=1)]
    assert all(not set(known) & set(other) for other in others)


def reference(logits, settings, uniform):
    """The token by its definition, in double precision: keep, normalise, add up, look up."""
    kept = logits.astype(np.float64) / settings.temperature
    if 0 < settings.top_k < len(kept):
        kept[kept < np.sort(kept)[-settings.top_k]] = -np.inf
    odds = np.exp(kept - kept.max())
    odds /= odds.sum()
    if settings.top_p < 1:
        order = np.argsort(-odds, kind="stable")
        before = np.cumsum(odds[order]) - odds[order]
        odds[order[before >= settings.top_p]] = 0
        odds /= odds.sum()
    return int(np.searchsorted(np.cumsum(odds), uniform, side="right"))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 7},
        {"top_p": 0.3},
        {"top_p": 0.9, "temperature": 1.5},
        {"top_k": 20, "top_p": 0.8},
    ],
)
@pytest.mark.parametrize("vocabulary", [1, 2, 5, 36, 275, 1364])
def test_samples_are_those_of_the_inverse_distribution_function(how, vocabulary):
    chance = np.random.default_rng(vocabulary)
    logits = chance.normal(size=(300, vocabulary)).astype(np.float32) * 3
    uniforms = chance.random(300)
    settings = SamplingSettings(**how)
    tokens = sample_tokens(torch.from_numpy(logits), [settings] * 300, uniforms.tolist()).tolist()
    assert tokens == [reference(row, settings, u) for row, u in zip(logits, uniforms, strict=True)]


def test_samples_have_the_frequencies_of_the_model():
    odds = np.array([0.4, 0.25, 0.2, 0.1, 0.04, 0.01])
    stream = RandomStream(0, "toy", 0)
    rows = 20000
    logits = torch.log(torch.tensor(odds, dtype=torch.float32)).repeat(rows, 1)
    tokens = sample_tokens(logits, [SamplingSettings()] * rows, [stream.next() for _ in range(rows)])
    counted = np.bincount(tokens.numpy(), minlength=6)
    assert chisquare(counted, odds * rows).pvalue > 0.01
    # At temperature 2 a token's share is the square root of its odds, normalised.
    cooled = sample_tokens(
        logits, [SamplingSettings(temperature=2)] * rows, [stream.next() for _ in range(rows)]
    )
    share = np.sqrt(odds) / np.sqrt(odds).sum()
    assert chisquare(np.bincount(cooled.numpy(), minlength=6), share * rows).pvalue > 0.01


def test_a_token_that_is_ruled_out_is_never_sampled_not_even_at_the_edges():
    logits = torch.full((2, 40), -torch.inf)
    logits[:, 3], logits[:, 30] = 0.0, -1.0
    almost_one = float(np.nextafter(1.0, 0.0))
    assert sample_tokens(logits, [SamplingSettings()] * 2, [0.0, almost_one]).tolist() == [3, 30]


def test_top_p_and_top_k_keep_the_tokens_they_promise():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(2000, 1)
    uniforms = np.random.default_rng(0).random(2000).tolist()

    def sampled_tokens(**how):
        return set(sample_tokens(logits.clone(), [SamplingSettings(**how)] * 2000, uniforms).tolist())

    assert sampled_tokens(temperature=0) == {0}
    assert sampled_tokens(top_k=1) == {0}
    assert sampled_tokens(top_k=2) == {0, 1}
    assert sampled_tokens(top_p=0.4) == {0}  # the first token alone holds 0.5
    assert sampled_tokens(top_p=0.6) == {0, 1}  # 0.5 is not enough, 0.8 is
    assert sampled_tokens() == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "sharpness", [0.1, 3.0]
)  # some 100,000 tokens hold 0.8 of the mass, and a few hundred
@pytest.mark.parametrize("how", [{}, {"top_p": 0.8}, {"top_k": 50, "top_p": 0.95}])
def test_a_real_vocabulary_is_sampled_alike_a_few_rows_at_a_time_and_never_sorted(how, sharpness):
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(5, 151_936)).astype(np.float32) * sharpness
    uniforms = chance.random(5)
    made = Work()
    with made:
        tokens = sample_tokens(torch.from_numpy(logits), [SamplingSettings(**how)] * 5, uniforms.tolist())
    for token, row, uniform in zip(tokens.tolist(), logits, uniforms, strict=True):
        # Weights are in single precision: of tokens of a 100,000th of the mass the neighbour is as good.
        assert abs(token - reference(row, SamplingSettings(**how), uniform)) <= (sharpness < 1)
    assert "sort" not in made.operators
    assert made.largest <= 2 * 151_936  # elements, where the five rows have five times as many


class Work(TorchDispatchMode):
    """The operators that ran, and how many elements the largest tensor had that one of them made."""

    def __init__(self):
        super().__init__()
        self.operators, self.largest = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.operators.add(func.overloadpacket.__name__)
        if isinstance(made, torch.Tensor) and not func.is_view:
            self.largest = max(self.largest, made.numel())
        return made


# -- work -------------------------------------------------------------------------------------------------------


def test_no_work_is_done_twice_and_no_ended_row_is_carried_on(loaded, questions):
    sampler = TransformersSampler(loaded)
    groups = sampler.sample(questions, samples_per_question=8, settings=HOT)
    lengths = [len(s.completion.token_ids) for group in groups for s in group]
    assert len(set(lengths)) > 3
    assert sampler.counts.pictures_prepared == 5
    assert sampler.counts.pictures_encoded == 5
    assert sampler.counts.prompt_tokens == sum(len(group[0].prompt_ids) for group in groups)
    assert sampler.counts.decode_tokens == sum(lengths) - 40  # the first token of each comes with its prompt
    sampler.sample(questions, samples_per_question=8, settings=HOT)
    assert sampler.counts.pictures_prepared == 5
    assert sampler.counts.pictures_encoded == 10  # the weights may have changed


def test_an_opened_picture_is_as_good_as_its_file_and_prepared_once(loaded, questions):
    opened = [replace(q, image=Image.open(q.image).convert("RGB")) for q in questions]
    sampler = TransformersSampler(loaded)
    of_opened = sampler.sample(opened, samples_per_question=1, settings=GREEDY)
    sampler.sample(
        [replace(q, image=q.image.copy()) for q in opened], samples_per_question=1, settings=GREEDY
    )
    assert sampler.counts.pictures_prepared == 5
    assert of_opened == sampled(loaded, questions, GREEDY)
    assert sampler.counts.pictures_encoded == 10


# -- streaming --------------------------------------------------------------------------------------------------


class Recorder:
    """Records the pieces it receives; stops a question once it has so many of them."""

    def __init__(self, stop_after=None):
        self.pieces = {}
        self.stop_after = stop_after or {}

    def wrote(self, question, sample, text):
        assert text
        self.pieces.setdefault((question, sample), []).append(text)

    def wants(self, question):
        pieces = sum(len(own) for (q, _), own in self.pieces.items() if q == question)
        return pieces < self.stop_after.get(question, 1000)


def test_the_pieces_add_up_to_the_text_even_where_it_is_invalid(loaded, questions):
    listener = Recorder()
    groups = TransformersSampler(loaded).sample(
        questions, samples_per_question=4, settings=HOT, listener=listener
    )
    texts = [s.completion.text for group in groups for s in group]
    assert sum("\ufffd" in text for text in texts) > 10  # random bytes are seldom text
    for question, group in enumerate(groups):
        for sample, s in enumerate(group):
            assert "".join(listener.pieces.get((question, sample), [])) == s.completion.text
    assert groups == sampled(loaded, questions, HOT, samples=4)


def test_nothing_behind_a_stop_string_is_streamed(loaded, questions):
    listener = Recorder()
    stops = ("Ho", "do", "ma", "thi")  # " dogs", "How", " many" and "<think>" are tokens
    groups = TransformersSampler(loaded).sample(
        questions, samples_per_question=8, settings=replace(HOT, stop=stops), listener=listener
    )
    cut = 0
    for question, group in enumerate(groups):
        for sample, s in enumerate(group):
            assert "".join(listener.pieces.get((question, sample), [])) == s.completion.text
            if s.completion.finish is Finish.STOP:
                assert s.completion.text.endswith(stops)
                cut += loaded.processor.tokenizer.decode(s.completion.token_ids) != s.completion.text
    assert cut > 5


def test_a_character_is_streamed_with_its_last_byte():
    tokenizer = tiny_random.qwen().processor.tokenizer
    stream = IncrementalDetokenizer(tokenizer)
    pieces = [stream.add(token) for token in tokenizer("a\u00e9\u20ac\U0001f600b")["input_ids"]]
    assert pieces == ["a", "", "\u00e9", "", "", "\u20ac", "", "", "", "\U0001f600", "b"]
    assert stream.rest("a\u00e9\u20ac\U0001f600b") == ""


def test_a_stop_string_beyond_ascii_is_found_at_its_last_byte():
    tokenizer = tiny_random.qwen().processor.tokenizer
    finder = StopFinder(tokenizer, ["\u7b54\u3048"])
    ids = tokenizer("no \u7b54\u3048")["input_ids"]
    found = [
        finder.may_complete(ids[end - 1]) and finder.completes(ids[:end]) for end in range(1, len(ids) + 1)
    ]
    assert found == [False] * (len(ids) - 1) + [True]


def test_a_question_no_longer_wanted_stops_and_holds_up_nobody(loaded, questions):
    free = sampled(loaded, questions, HOT, samples=2)
    sampler = TransformersSampler(loaded)
    listener = Recorder(stop_after={1: 3})
    groups = sampler.sample(questions, samples_per_question=2, settings=HOT, listener=listener)
    assert groups[1] == [Unsampled("no longer wanted")] * 2
    assert [groups[i] for i in (0, 2, 3, 4)] == [free[i] for i in (0, 2, 3, 4)]
    assert sum(len(p) for (q, _), p in listener.pieces.items() if q == 1) in (3, 4)
    unwanted = Recorder(stop_after=dict.fromkeys(range(5), 0))
    before = sampler.counts.prompt_tokens
    assert (
        sampler.sample(questions, samples_per_question=1, settings=HOT, listener=unwanted)
        == [[Unsampled("no longer wanted")]] * 5
    )
    assert sampler.counts.prompt_tokens == before


def test_a_question_that_cannot_be_asked_does_not_join(loaded, questions):
    batch = ContinuousBatch(TransformersSampler(loaded))
    missing = Asked("m", "no/such/picture.png", "yes")
    first, refused, second = batch.admit([questions[0], missing, questions[1]], [GREEDY] * 3)
    assert isinstance(refused, Unsampled)
    assert "no/such/picture.png" in refused.reason
    assert first != second
    assert batch.live == 2
    done = {}
    while batch.live:
        done |= {wrote.handle: wrote.done for wrote in batch.step() if wrote.done is not None}
    assert [[done[first]], [done[second]]] == sampled(loaded, questions[:2], GREEDY)


def test_the_replay_sampler_streams_each_recorded_completion_whole():
    listener = Recorder(stop_after={1: 0})
    said = Completion("<answer>2", (1, 2), Finish.EOS)
    groups = ReplaySampler({"a": [said], "b": [said]}, seen_size=tiny_random.Size(56, 28)).sample(
        [Asked("a", "a.png", "?"), Asked("b", "b.png", "?")],
        samples_per_question=1,
        settings=SamplingSettings(),
        listener=listener,
    )
    assert listener.pieces == {(0, 0): ["<answer>2"]}
    assert groups[1] == [Unsampled("no longer wanted")]
