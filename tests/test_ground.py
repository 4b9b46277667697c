"""Asking a picture: boxes come back in the picture's own pixels, whatever size the model saw."""

from __future__ import annotations

import pytest
from PIL import Image

from opengrit.boxes import Size
from opengrit.errors import ImageError
from opengrit.ground import Grounder, draw_boxes
from opengrit.samplers.replay import ReplaySampler
from opengrit.types import Completion, Finish

TEXT = '<think>{"bbox_2d": [14, 28, 56, 84], "label": "dog"}</think><rethink>One.</rethink><answer>1</answer>'


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (560, 224), "white").save(path)
    return path


def grounder(text: str = TEXT, **kwargs) -> Grounder:
    sampler = ReplaySampler({"ask": [Completion(text, finish=Finish.STOP)]}, seen_size=Size(140, 56))
    return Grounder(sampler, frame="qwen2_5_vl", **kwargs)


def test_boxes_come_back_in_picture_pixels(photo):
    # The model saw 140 x 56 of a 560 x 224 picture, so its pixels count four times; 84 lies below 56 and is cut there.
    answer = grounder().ask(photo, "How many dogs are there?")
    assert answer.text == "1"
    assert [box.label for box in answer.boxes] == ["dog"]
    assert answer.boxes[0].pixels == pytest.approx((56, 112, 224, 224))
    assert answer.picture_size == Size(560, 224)


def test_the_json_holds_both_frames_and_the_ending(photo):
    said = grounder().ask(photo, "How many dogs are there?").to_json()
    assert said["boxes"][0]["pixels"] == [56, 112, 224, 224]
    assert said["boxes"][0]["unit"] == [0.1, 0.5, 0.4, 1.0]
    assert said["finish"] == "stop"


def test_a_plain_reply_is_the_answer_under_the_direct_prompt_only(photo):
    assert grounder("Two.", strategy="direct").ask(photo, "How many?").text == "Two."
    assert grounder("Two.").ask(photo, "How many?").text is None


def test_a_picture_that_cannot_be_read_is_an_error(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    with pytest.raises(ImageError):
        grounder().ask(broken, "How many?")


def test_boxes_are_drawn_where_they_are(photo):
    answer = grounder().ask(photo, "How many dogs are there?")
    drawn = draw_boxes(Image.open(photo), answer.boxes)
    assert drawn.size == (560, 224)
    blue = (0, 114, 178)
    assert drawn.getpixel((56, 170)) == blue
    assert drawn.getpixel((224, 170)) == blue
    assert drawn.getpixel((140, 170)) == (255, 255, 255)
