"""Asking a picture: boxes come back in the picture's own pixels, whatever size the model saw."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

from opengrit.core.boxes import Box, Size, union_iou
from opengrit.core.errors import DataError, ImageError, ModelError
from opengrit.core.types import Completion, Finish
from opengrit.data.stickers import world
from opengrit.grounding.prompts import detection_question
from opengrit.inference.grounder import Answer, Grounder, Unanswered
from opengrit.sampling import Sampled, SamplingSettings, Unsampled
from opengrit.sampling.replay import ReplaySampler

TEXT = '<think>{"bbox_2d": [14, 28, 56, 84], "label": "dog"}</think><rethink>One.</rethink><answer>1</answer>'
QUESTION = "How many dogs are there?"
FAMILIES = ("tiny-qwen2.5-vl", "tiny-internvl3")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (560, 224), "white").save(path)
    return path


def grounder(text: str = TEXT, **kwargs) -> Grounder:
    sampler = ReplaySampler({"ask": [Completion(text, finish=Finish.STOP)]}, seen_size=Size(140, 56))
    return Grounder(sampler, frame="qwen2_5_vl", **kwargs)


@pytest.fixture(scope="module", params=FAMILIES)
def packaged(request: pytest.FixtureRequest) -> Grounder:
    pytest.importorskip("torch")
    return Grounder.load(request.param, strategy="direct")


def scenes(count: int) -> list[tuple[Image.Image, str, tuple[Box, ...]]]:
    """Sticker scenes of 168 x 140 with two of a kind: the picture, the kind and the true boxes."""
    found = []
    for index in itertools.count():
        rng = world.seeded("test_ground", index)
        kind, other = rng.sample(world.KINDS, 2)
        scene = world.compose(rng, [kind, kind, other], world.SEEN_STYLES, canvas=Size(168, 140))
        if scene is not None:
            truth = tuple(
                Box.from_pixels(o.left, o.top, o.right, o.bottom, size=scene.size)
                for o in scene.of_kind(kind)
            )
            found.append((world.draw(scene), detection_question(world.PLURALS[kind]), truth))
        if len(found) == count:
            return found


# -- one answer -----------------------------------------------------------------------------------------------------


def test_boxes_come_back_in_picture_pixels(photo):
    # The model saw 140 x 56 of a 560 x 224 picture, so its pixels count four times; 84 lies below 56 and is cut there.
    answer = grounder(model="toy").ask(photo, QUESTION)
    assert answer.answer == "1"
    assert answer.text == TEXT
    [box] = answer.boxes
    assert (box.number, box.label, box.box) == (1, "dog", Box(0.1, 0.5, 0.4, 1.0))
    assert box.pixels == pytest.approx((56, 112, 224, 224))
    assert TEXT[box.start : box.end] == "[14, 28, 56, 84]"
    assert (answer.picture_size, answer.seen_size) == (Size(560, 224), Size(140, 56))
    assert (answer.finish, answer.model) == (Finish.STOP, "toy")


def test_the_json_holds_both_frames_and_the_ending(photo):
    said = grounder().ask(photo, QUESTION).as_json()
    assert said["boxes"][0]["pixels"] == [56, 112, 224, 224]
    assert said["boxes"][0]["unit"] == [0.1, 0.5, 0.4, 1.0]
    assert (said["finish"], said["answer"], said["transcript"]) == ("stop", "1", TEXT)
    assert (said["prompt_tokens"], said["completion_tokens"]) == (None, None)  # a replay counts none


def test_a_plain_reply_is_the_answer_under_the_direct_prompt_only(photo):
    assert grounder("Two.", strategy="direct").ask(photo, "How many?").answer == "Two."
    assert grounder("Two.").ask(photo, "How many?").answer is None


def test_a_picture_that_cannot_be_read_is_an_error(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    for ask in (grounder().ask, lambda *what: list(grounder().stream(*what))):
        with pytest.raises(ImageError):
            ask(broken, "How many?")


@pytest.mark.parametrize("question", ["", "  ", "\ud800", None])
def test_a_question_that_is_no_text_is_an_error(photo, question):
    with pytest.raises(DataError, match="a question is non-empty text"):
        grounder().ask(photo, question)


def test_what_the_model_cannot_be_asked_is_an_error_with_the_samplers_reason(photo):
    silent = Grounder(ReplaySampler({}, seen_size=Size(1, 1)), frame="qwen2_5_vl")
    with pytest.raises(ModelError, match="0 completions are recorded"):
        silent.ask(photo, QUESTION)


def test_a_model_name_belongs_to_an_endpoint_only():
    with pytest.raises(ModelError, match="behind an endpoint's URL"):
        Grounder.load("tiny-qwen2.5-vl", model="other")
    with pytest.raises(ModelError, match="which coordinates"):
        Grounder.load("http://127.0.0.1:9/v1", model="other")


def test_importing_the_package_loads_neither_the_grounder_nor_torch():
    code = (
        "import sys, opengrit; assert 'Grounder' in dir(opengrit)\n"
        "assert not {'torch', 'PIL', 'numpy', 'opengrit.inference.grounder'} & set(sys.modules), sys.modules.keys()\n"
        "from opengrit import Grounder, Answer; assert Grounder.__module__ == 'opengrit.inference.grounder' and Answer\n"
        "assert 'torch' not in sys.modules\n"
        "try: opengrit.Grinder\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'opengrit' has no attribute 'Grinder'\n"


# -- many, streamed, asynchronous -----------------------------------------------------------------------------------


def test_many_answers_come_in_order_and_a_failure_holds_up_nothing(photo, tmp_path):
    pairs = [
        (photo, QUESTION),
        (tmp_path / "none.png", QUESTION),
        (photo, " "),
        (b"no picture", "Why?"),
        (Image.new("RGB", (70, 28)), QUESTION),
    ]
    first, missing, empty, torn, last = grounder().ask_many(pairs, batch_size=2, quiet=True)
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)
    assert last.boxes[0].pixels == pytest.approx((7, 14, 28, 28))  # 0.1 of 70, 0.5 and 1.0 of 28
    for failed, reason in ((missing, "there is none"), (empty, "non-empty"), (torn, "PNG")):
        assert isinstance(failed, Unanswered)
        assert reason in failed.reason
    assert torn.as_json() == {"question": "Why?", "error": torn.reason}
    assert grounder().ask_many([], quiet=True) == []


def test_a_stream_is_the_text_in_pieces_and_then_the_answer(photo):
    *pieces, answer = grounder().stream(photo, QUESTION)
    assert "".join(pieces) == answer.text == TEXT


class SlowSampler:
    """Writes a letter each time it is let, until nobody wants more."""

    def __init__(self) -> None:
        self.letters = threading.Semaphore(0)
        self.ended = threading.Event()
        self.in_use = threading.Lock()

    def sample(self, questions, *, samples_per_question, settings: SamplingSettings, listener=None):
        assert self.in_use.acquire(blocking=False), "two callers at once"
        try:
            text = ""
            while len(text) < settings.max_new_tokens:
                while not self.letters.acquire(timeout=0.02):
                    if listener is not None and not listener.wants(0):
                        self.ended.set()
                        return [[Unsampled("no longer wanted")] for _ in questions]
                text += "x"
                if listener is not None:
                    listener.wrote(0, 0, "x")
            return [[Sampled(Completion(text), (), Size(10, 10))] for _ in questions]
        finally:
            self.in_use.release()


def test_a_stream_gives_each_piece_when_it_is_written_and_stops_the_model_when_closed(photo):
    slow = SlowSampler()
    stream = Grounder(slow, frame="thousand").stream(photo, QUESTION, max_new_tokens=9)
    slow.letters.release()
    assert next(stream) == "x"
    assert not slow.ended.is_set()
    stream.close()
    assert slow.ended.is_set()


def test_asking_from_an_event_loop_keeps_the_loop_free(photo):
    slow = SlowSampler()
    asked = Grounder(slow, frame="thousand")

    async def both() -> list[Answer]:
        waiting = [asyncio.create_task(asked.aask(photo, QUESTION, max_new_tokens=2)) for _ in range(3)]
        await asyncio.sleep(0)
        slow.letters.release(6)  # reached only because the loop stays free
        return await asyncio.gather(*waiting)

    assert [answer.text for answer in asyncio.run(both())] == ["xx"] * 3


def test_cancelling_an_asynchronous_question_stops_the_model(photo):
    slow = SlowSampler()
    asked = Grounder(slow, frame="thousand")

    async def cancel() -> None:
        for asking in (
            asked.aask(photo, QUESTION, max_new_tokens=2),
            asked.aask_many([(photo, QUESTION)] * 3, max_new_tokens=2),
        ):
            slow.ended.clear()
            task = asyncio.create_task(asking)
            while not slow.in_use.locked():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(slow.ended.wait, 60)
            while slow.in_use.locked():
                await asyncio.sleep(0.01)

    asyncio.run(cancel())


def test_an_asynchronous_stream_is_the_text_and_then_the_answer_and_closing_it_stops_the_model(photo):
    slow = SlowSampler()
    asked = Grounder(slow, frame="thousand")

    async def listen() -> None:
        slow.letters.release(2)
        said = [piece async for piece in asked.astream(photo, QUESTION, max_new_tokens=2)]
        assert said[:2] == ["x", "x"]
        assert isinstance(said[2], Answer)
        stream = asked.astream(photo, QUESTION, max_new_tokens=2)
        slow.letters.release()
        assert await anext(stream) == "x"
        await stream.aclose()
        assert await asyncio.to_thread(slow.ended.wait, 60)
        with pytest.raises(ImageError):
            await anext(asked.astream("none.png", QUESTION))
        assert (await grounder().aask_many([(photo, QUESTION)]))[0].text == TEXT

    asyncio.run(listen())


# -- drawing --------------------------------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are_in_the_first_colour(photo):
    asked = grounder()
    drawn = asked.draw(asked.ask(photo, QUESTION), photo)
    assert drawn.size == (560, 224)
    orange = (0xE6, 0x9F, 0x00)
    assert drawn.getpixel((56, 170)) == orange
    assert drawn.getpixel((224, 170)) == orange
    assert drawn.getpixel((140, 170)) == (255, 255, 255)


def test_a_small_picture_is_enlarged_and_its_boxes_with_it(tmp_path):
    small = Image.new("RGB", (48, 24), "white")
    asked = grounder()
    drawn = asked.draw(asked.ask(small, QUESTION), small)
    assert drawn.size == (480, 240)
    # A tenth of the width and half of the height: the left edge stands at x = 48, below y = 120.
    assert drawn.getpixel((48, 200)) == (0xE6, 0x9F, 0x00)
    assert small.size == (48, 24)


def test_labels_of_any_kind_are_drawn_and_the_wrong_picture_is_refused(photo):
    odd = TEXT.replace("dog", "<b>&\\u0000\\u001b[31m " + "very " * 40)
    asked = grounder(odd)
    answer = asked.ask(photo, QUESTION)
    assert asked.draw(answer, photo).size == (560, 224)
    with pytest.raises(ImageError, match="560 x 224 pixels, got 10 x 10"):
        asked.draw(answer, Image.new("RGB", (10, 10)))


# -- the packaged models --------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_as_path_bytes_pillow_and_array(packaged, tmp_path):
    [(picture, question, _)] = scenes(1)
    path = tmp_path / "scene.png"
    picture.save(path)
    forms = [path, str(path), path.read_bytes(), Image.open(path), picture, np.asarray(picture)]
    answers = [packaged.ask(form, question, max_new_tokens=60) for form in forms]
    answers += packaged.ask_many([(form, question) for form in forms], max_new_tokens=60, quiet=True)
    assert answers[0].boxes
    assert len({(a.text, a.boxes, a.finish, a.prompt_tokens, a.completion_tokens) for a in answers}) == 1


def test_many_are_answered_as_each_alone_and_a_stream_as_ask(packaged):
    pictures = [picture for picture, _, _ in scenes(2)]
    pairs = list(itertools.product(pictures, ["Detect all dogs.", "How many trees are there?"]))
    how = {"max_new_tokens": 12, "temperature": 0.7, "seed": 5}
    alone = [packaged.ask(*pair, **how) for pair in pairs]
    together = packaged.ask_many(pairs, quiet=True, **how)
    assert [a.text for a in together] == [a.text for a in alone]
    *pieces, answer = packaged.stream(*pairs[0], **how)
    assert "".join(pieces) == answer.text == alone[0].text


def test_a_picture_stored_on_its_side_is_answered_as_the_upright_one(packaged, tmp_path):
    [(picture, question, _)] = scenes(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left: to be turned right to be seen
    path = tmp_path / "turned.png"
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    upright = packaged.ask(picture, question, max_new_tokens=60)
    assert upright.boxes
    for turned in (path, path.read_bytes(), Image.open(path)):
        answer = packaged.ask(turned, question, max_new_tokens=60)
        assert (answer.text, answer.boxes) == (upright.text, upright.boxes)
        assert answer.picture_size == Size(168, 140)
    assert packaged.draw(upright, path).size == (480, 400)


@pytest.mark.slow
def test_boxes_in_a_picture_of_4000_by_3000_sit_as_right_as_in_the_small_one(packaged):
    # Qwen's budget of 168 x 168 pixels makes 168 x 140 of 4000 x 3000, the size of the small scenes; InternVL's is fixed.
    shown = scenes(6)
    small = packaged.ask_many([(p, q) for p, q, _ in shown], max_new_tokens=100, quiet=True)
    large = packaged.ask_many(
        [(p.resize((4000, 3000), Image.Resampling.BICUBIC), q) for p, q, _ in shown],
        max_new_tokens=100,
        quiet=True,
    )
    ious = {}
    for name, size, answers in (("small", Size(168, 140), small), ("large", Size(4000, 3000), large)):
        assert all(answer.picture_size == size for answer in answers)
        # From the pixels of the answer, as a user has them, to the truth scaled to the same picture.
        boxes = [[Box.from_pixels(*b.pixels, size=size) for b in answer.boxes] for answer in answers]
        ious[name] = mean(union_iou(own, truth) for own, (_, _, truth) in zip(boxes, shown, strict=True))
    print(packaged.model, ious)
    assert ious["large"] > 0.5
    assert ious["large"] == pytest.approx(ious["small"], abs=0.05)
