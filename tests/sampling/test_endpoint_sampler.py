"""The endpoint sampler: what it sends, what it makes of the replies, and that a failure is never an answer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from endpoint_stub import Request, Said, endpoint_stub
from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError, ModelError, RecipeError
from opengrit.core.types import Finish
from opengrit.grounding.frames import Unit
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.endpoint import EndpointSampler, ResizeRule, sample_seed

GOOD = '<think>{"bbox_2d": [28, 28, 56, 84]}</think><rethink>one</rethink><answer>1'
SETTINGS = SamplingSettings(temperature=0.5, top_p=0.9, max_new_tokens=40, seed=3)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.linear_gradient("L").convert("RGB").resize((560, 224)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def sampler(url: str, **how: object) -> EndpointSampler:
    options = {"model": "toy", "frame": "qwen2_5_vl", "max_tries": 1} | how
    return EndpointSampler.connect(url, **options)  # type: ignore[arg-type]


def sample_one(url: str, image: object, settings: SamplingSettings = SETTINGS, **how: object) -> object:
    made = sampler(url, **how)
    try:
        [[said]] = made.sample([Asked("q", image, "Why?")], samples_per_question=1, settings=settings)  # type: ignore[arg-type]
    finally:
        made.close()
    return said


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ((560, 224), (560, 224)),  # 20 x 8 tiles of 28 already
        ((100, 100), (112, 112)),  # 100 / 28 = 3.57, rounded to 4 tiles
        ((4000, 3000), (4004, 2996)),  # 142.9 -> 143 and 107.1 -> 107 tiles: 11,995,984 pixels, in budget
        ((28, 28), (56, 56)),  # 784 pixels are fewer than 3136: twice as wide and tall
    ],
)
def test_the_seen_size_is_the_one_qwens_rule_gives(given: tuple[int, int], seen: tuple[int, int]) -> None:
    assert ResizeRule(Unit.PIXELS).seen_size(Size(*given)) == Size(*seen)


def test_a_picture_over_the_budget_is_scaled_down_to_whole_tiles_within_it() -> None:
    # sqrt(4000 * 3000 / 28224) = 20.62; 4000 / 20.62 / 28 = 6.93 -> 6 tiles, 3000 / 20.62 / 28 = 5.196 -> 5 tiles.
    assert ResizeRule(Unit.PIXELS, max_pixels=28224).seen_size(Size(4000, 3000)) == Size(168, 140)


def test_the_seen_size_agrees_with_the_processor_on_many_sizes() -> None:
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    for low, high in ((3136, 28224), (3136, 1_003_520), (50_000, 60_000)):
        rule = ResizeRule(Unit.PIXELS, min_pixels=low, max_pixels=high)
        for width in (1, 5, 14, 27, 42, 99, 336, 1001, 4000):
            for height in (1, 13, 14, 70, 224, 775, 3000):
                if max(width, height) > 200 * min(width, height):
                    with pytest.raises(ImageError):
                        rule.seen_size(Size(width, height))
                    continue
                tall, wide = qwen.smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
                assert rule.seen_size(Size(width, height)) == Size(wide, tall)


def test_families_that_count_in_shares_are_sent_the_picture_as_it_is_or_scaled_down() -> None:
    assert ResizeRule(Unit.THOUSAND).seen_size(Size(4000, 3000)) == Size(4000, 3000)
    # A quarter of the pixels is half of each side.
    assert ResizeRule(Unit.THOUSAND, max_pixels=3_000_000).seen_size(Size(4000, 3000)) == Size(2000, 1500)


def test_the_server_gets_exactly_the_seen_picture_and_the_settings(photo: str) -> None:
    with endpoint_stub(lambda _: Said(GOOD)) as stub:
        said = sample_one(stub.url, photo, max_pixels=28224)
        [request] = stub.requests
    assert isinstance(said, Sampled)
    # sqrt(560 * 224 / 28224) = 2.108; 560 / 2.108 / 28 = 9.49 -> 9 tiles, 224 / 2.108 / 28 = 3.79 -> 3 tiles.
    assert said.seen_size == Size(252, 84)
    assert request.picture.size == (252, 84)
    assert request.text == "Why?"
    assert request.body["model"] == "toy"
    assert (request.body["temperature"], request.body["top_p"], request.body["max_tokens"]) == (0.5, 0.9, 40)
    assert request.body["stop"] == ["</answer>"]
    assert request.body["seed"] == sample_seed(3, "q", 0)
    assert "top_k" not in request.body


def test_a_picture_of_the_right_size_travels_without_loss(photo: str) -> None:
    with endpoint_stub(lambda _: Said(GOOD)) as stub:
        sample_one(stub.url, Image.open(photo).convert("RGB"))
        assert stub.requests[0].picture.tobytes() == Image.open(photo).tobytes()


def test_samples_and_questions_have_seeds_of_their_own(photo: str) -> None:
    with endpoint_stub(lambda _: Said(GOOD)) as stub:
        made = sampler(stub.url)
        groups = made.sample(
            [Asked("a", photo, "A?"), Asked("b", photo, "B?")], samples_per_question=3, settings=SETTINGS
        )
        made.close()
        seeds = [request.body["seed"] for request in stub.requests]
    assert [len(group) for group in groups] == [3, 3]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_each_question_may_have_its_own_settings(photo: str) -> None:
    with endpoint_stub(lambda request: Said(request.text + str(request.body["max_tokens"]))) as stub:
        made = sampler(stub.url)
        each = [SamplingSettings(max_new_tokens=5, stop=()), SamplingSettings(max_new_tokens=6, stop=())]
        groups = made.sample(
            [Asked("a", photo, "A"), Asked("b", photo, "B")], samples_per_question=1, settings=each
        )
        made.close()
    assert [group[0].completion.text for group in groups] == ["A5", "B6"]  # type: ignore[union-attr]


# -- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "reason", "text", "finish"),
    [
        (GOOD, "stop", GOOD + "</answer>", Finish.STOP),  # the server took the stop string off
        (GOOD + "</answer>", "stop", GOOD + "</answer>", Finish.STOP),  # it left it on
        (
            GOOD + "</answer> and more",
            "length",
            GOOD + "</answer>",
            Finish.STOP,
        ),  # it does not heed stop strings
        (GOOD, "length", GOOD, Finish.LENGTH),
        ("I see no dog.", "stop", "I see no dog.", Finish.EOS),
        ("<answer>1</answer", "length", "<answer>1</answer", Finish.LENGTH),
        ("Two.", None, "Two.", Finish.UNKNOWN),
    ],
)
def test_why_a_text_ended_is_read_from_reason_and_text(
    photo: str, written: str, reason: str | None, text: str, finish: Finish
) -> None:
    with endpoint_stub(lambda _: Said(written, reason)) as stub:
        said = sample_one(stub.url, photo)
    assert isinstance(said, Sampled)
    assert (said.completion.text, said.completion.finish) == (text, finish)
    assert (said.completion.token_ids, said.prompt_ids) == ((), ())


@pytest.mark.parametrize(
    ("written", "finish", "reason", "text", "end"),
    [
        ("<answer>1", "stop", "</answer>", "<answer>1</answer>", Finish.STOP),
        ("<answer>1", "stop", None, "<answer>1", Finish.EOS),  # it ended by itself within an open <answer>
        ("<answer>1", "stop", 151645, "<answer>1", Finish.EOS),  # an end token
        ("<answer>1", "stop", "END", "<answer>1END", Finish.STOP),
        ("a thought", "stop", "</answer>", "a thought</answer>", Finish.STOP),
        ("<answer>1</answer>", "stop", "</answer>", "<answer>1</answer>", Finish.STOP),  # it kept the tag
        ("<answer>1", "length", None, "<answer>1", Finish.LENGTH),
    ],
)
def test_a_server_that_says_what_ended_a_text_is_believed(
    photo: str, written: str, finish: str, reason: object, text: str, end: Finish
) -> None:
    settings = SamplingSettings(max_new_tokens=40, stop=("</answer>", "END"))
    with endpoint_stub(lambda _: Said(written, finish, stop_reason=reason)) as stub:
        said = sample_one(stub.url, photo, settings)
        assert isinstance(said, Sampled)
        assert (said.completion.text, said.completion.finish) == (text, end)
        heard: list[str] = []
        streamed = stream_one(stub.url, photo, settings, heard)
    assert isinstance(streamed, Sampled)
    assert (streamed.completion, "".join(heard)) == (said.completion, text)


def stream_one(url: str, photo: str, settings: SamplingSettings, heard: list[str]) -> object:
    class Hearing:
        def wrote(self, question: int, sample: int, text: str) -> None:
            heard.append(text)

        def wants(self, question: int) -> bool:
            return True

    made = sampler(url)
    try:
        [[said]] = made.sample(
            [Asked("q", photo, "Why?")], samples_per_question=1, settings=settings, listener=Hearing()
        )
    finally:
        made.close()
    return said


@pytest.mark.parametrize("usage", [(1234, 56), (7, 0), None])
def test_the_tokens_that_a_server_counts_are_passed_on_and_estimates_are_not(
    photo: str, usage: tuple[int, int] | None
) -> None:
    with endpoint_stub(lambda _: Said(GOOD, usage=usage)) as stub:
        for said in (sample_one(stub.url, photo), stream_one(stub.url, photo, SETTINGS, [])):
            assert isinstance(said, Sampled)
            assert (said.prompt_tokens, said.completion_tokens) == (usage or (None, None))


@pytest.mark.parametrize(
    ("status", "remedy", "passed_on"),
    [
        (400, "change what the reason names", 400),
        (404, "name a model that it serves", 404),
        (422, "change what the reason names", 422),
        (401, "put its key into the variable OPENAI_API_KEY", None),
        (500, "check that it runs", None),
    ],
)
def test_a_refusal_says_its_reason_and_what_helps(
    photo: str, status: int, remedy: str, passed_on: int | None
) -> None:
    with endpoint_stub(lambda _: Said("max_tokens is too large", status=status)) as stub:
        said = sample_one(stub.url, photo)
    assert isinstance(said, Unsampled)
    assert f"HTTP {status}" in said.reason
    assert remedy in said.reason
    assert ("max_tokens is too large" in said.reason) is (status != 401)
    assert said.status == passed_on


@pytest.mark.parametrize("written", [GOOD, GOOD + "</answer>", GOOD + "</answer> and more, and still more"])
def test_what_is_streamed_is_the_completion(photo: str, written: str) -> None:
    heard: list[str] = []

    class Listener:
        def wrote(self, question: int, sample: int, text: str) -> None:
            assert (question, sample) == (0, 0)
            heard.append(text)

        def wants(self, question: int) -> bool:
            return True

    with endpoint_stub(lambda _: Said(written)) as stub:
        made = sampler(stub.url)
        [[said]] = made.sample(
            [Asked("q", photo, "Why?")], samples_per_question=1, settings=SETTINGS, listener=Listener()
        )
        made.close()
    assert isinstance(said, Sampled)
    assert len(heard) > 5
    assert "".join(heard) == said.completion.text == GOOD + "</answer>"
    assert said.completion.finish is Finish.STOP


def test_a_listener_that_wants_no_more_ends_the_request(photo: str) -> None:
    first_piece, never = threading.Event(), threading.Event()

    class Listener:
        def wrote(self, question: int, sample: int, text: str) -> None:
            first_piece.set()

        def wants(self, question: int) -> bool:
            return not first_piece.is_set()

    with endpoint_stub(lambda _: Said(GOOD, hold=never)) as stub:
        made = sampler(stub.url)
        [[said]] = made.sample(
            [Asked("q", photo, "Why?")], samples_per_question=1, settings=SETTINGS, listener=Listener()
        )
        assert stub.broken.wait(60)  # the server finds its client gone
        made.close()
    assert said == Unsampled("no longer wanted")


# -- what fails -----------------------------------------------------------------------------------------------------


def test_a_failure_is_unsampled_with_the_reason_and_holds_up_nobody(photo: str, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(Path(photo).read_bytes()[:300])

    def answer(request: Request) -> Said:
        return Said("out of memory", status=500) if "bad" in request.text else Said(GOOD)

    with endpoint_stub(answer) as stub:
        made = sampler(stub.url)
        [[good], [failed], [unreadable], [slim]] = made.sample(
            [
                Asked("a", photo, "good"),
                Asked("b", photo, "bad"),
                Asked("c", str(torn), "good"),
                Asked("d", Image.new("RGB", (6000, 20)), "good"),
            ],
            samples_per_question=1,
            settings=SETTINGS,
        )
        made.close()
    assert isinstance(good, Sampled)
    assert isinstance(failed, Unsampled)
    assert "out of memory" in failed.reason
    assert isinstance(unreadable, Unsampled)
    assert "damaged" in unreadable.reason
    assert isinstance(slim, Unsampled)
    assert "200 times as long as wide" in slim.reason


def test_a_failure_is_tried_again_before_it_is_one(photo: str) -> None:
    answers = iter([Said("busy", status=503), Said(GOOD)])
    with endpoint_stub(lambda _: next(answers)) as stub:
        said = sample_one(stub.url, photo, max_tries=2)
        assert len(stub.requests) == 2
    assert isinstance(said, Sampled)


def test_an_endpoint_that_is_down_and_one_that_withholds_are_unsampled(photo: str) -> None:
    with endpoint_stub(lambda _: Said("I", "content_filter")) as stub:
        assert sample_one(stub.url, photo) == Unsampled("the endpoint withheld the answer (content_filter)")
    down = sample_one(stub.url, photo)  # the server is gone by now
    assert isinstance(down, Unsampled)
    assert "connection" in down.reason


# -- connecting -----------------------------------------------------------------------------------------------------


def test_the_only_model_need_not_be_named_and_the_path_may_be_left_out(photo: str) -> None:
    with endpoint_stub(lambda _: Said(GOOD), models=("only",)) as stub:
        made = sampler(stub.url.removesuffix("/v1"), model=None)
        assert made.model == "only"
        [[said]] = made.sample([Asked("q", photo, "Why?")], samples_per_question=1, settings=SETTINGS)
        made.close()
        assert isinstance(said, Sampled)
        assert stub.requests[0].body["model"] == "only"


def test_an_endpoint_with_several_models_or_without_a_frame_is_refused() -> None:
    with endpoint_stub(lambda _: Said(GOOD), models=("a", "b")) as stub:
        with pytest.raises(ModelError, match="serves a, b; name the model"):
            sampler(stub.url, model=None)
        with pytest.raises(ModelError, match="name its model type"):
            sampler(stub.url, frame=None)
        with pytest.raises(RecipeError, match="got 'pixel' in the recipe or the command's options"):
            sampler(stub.url, frame="pixel")
        with pytest.raises(ModelError, match="min_pixels must be at most max_pixels"):
            sampler(stub.url, max_pixels=100)
