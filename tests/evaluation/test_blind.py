"""What is known without looking: every picture is shown grey, and nothing else differs."""

from __future__ import annotations

import tiny_random
from PIL import Image

from opengrit.evaluation.blind import BlindSampler
from opengrit.evaluation.probes import GREY
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.sampling import Asked, SamplingSettings, Unsampled
from opengrit.sampling.transformers_engine import TransformersSampler


class Watching:
    """Keeps what it is asked."""

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        self.questions = questions
        return [[Unsampled("not now")] for _ in questions]


def test_every_picture_is_grey_and_of_its_own_size(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    asked = [
        Asked("a", str(tmp_path / "a.png"), "How many dogs?", "system"),
        Asked("b", Image.new("RGB", (20, 50), "blue"), "And cats?"),
        Asked("c", str(tmp_path / "gone.png"), "And birds?"),
    ]
    watching = Watching()
    BlindSampler(watching).sample(asked, samples_per_question=1, settings=SamplingSettings())
    first, second, gone = watching.questions
    assert (first.id, first.text, first.system) == ("a", "How many dogs?", "system")
    assert [q.image.size for q in (first, second)] == [(40, 30), (20, 50)]
    assert all(q.image.getcolors() == [(q.image.width * q.image.height, GREY)] for q in (first, second))
    assert gone is asked[2]  # the sampler says why it cannot be read


def test_a_model_that_sees_nothing_answers_two_pictures_alike(tmp_path):
    loaded = tiny_random.talkative(tiny_random.qwen())
    pictures = [tiny_random.picture(tmp_path, f"{i}.png", width=84, height=84, seed=i) for i in range(2)]
    asked = [Asked("same", picture, "How many dogs?") for picture in pictures]
    settings = SamplingSettings(temperature=0.0, max_new_tokens=12)
    seeing, blind = (
        [group[0].completion for group in sampler.sample(asked, samples_per_question=1, settings=settings)]
        for sampler in (TransformersSampler(loaded), BlindSampler(TransformersSampler(loaded)))
    )
    assert blind[0] == blind[1]
    assert seeing[0] != blind[0] or seeing[1] != blind[1]


def test_a_recipe_says_that_it_is_blind_and_one_that_sees_is_written_as_before():
    seeing = EvalRecipe.model_validate(
        {"model": {"name": "tiny-qwen2.5-vl"}, "data": [{"name": "stickers/count"}]}
    )
    assert "blind" not in seeing.resolved_yaml()
    assert "blind: true" in seeing.model_copy(update={"blind": True}).resolved_yaml()
