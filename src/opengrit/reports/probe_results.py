"""A run of probes as the report shows it: scores, counts, and the answers that follow their boxes most and least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opengrit.core.errors import ImageError
from opengrit.core.escaping import harmless
from opengrit.core.images import open_picture
from opengrit.core.types import Example, Record, Verdict
from opengrit.evaluation.attention import ATTENTION, AttentionScores, attention_scores, read_attention
from opengrit.evaluation.correlation import CHOICES, CorrelationScores, correlation_scores, read_choices
from opengrit.evaluation.metrics import BOOTSTRAP_SEED, Estimate
from opengrit.evaluation.probes import (
    Lost,
    Probe,
    ProbeScores,
    Trial,
    greyed,
    hidden_boxes,
    probe_scores,
    telling_trials,
    trials,
)
from opengrit.evaluation.since import with_pictures
from opengrit.reports.attention_results import (
    ATTENTION_TITLE,
    attention_lines,
    attention_notes,
    attention_plot,
)
from opengrit.reports.pictures import NoPicture, Picture, embed
from opengrit.reports.plots import Interval, interval_plot
from opengrit.reports.runs import recipe_of
from opengrit.reports.tables import DASH, Cell, Line, Unit, difference_cell, value_cell
from opengrit.runs.folder import RunDir

_SHOWN_SIDE = 360  # picture pixels of each picture of a probed example; there are four in a row


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """A run of probes, read."""

    name: str
    of: str  # the run whose answers are probed
    scores: ProbeScores
    most: tuple[Trial, ...]
    least: tuple[Trial, ...]
    attention: AttentionScores | None
    correlation: CorrelationScores | None


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """One picture of a probed example: what was greyed, the answer to it, and how that compares."""

    title: str
    picture: Picture | NoPicture
    answer: str
    verdict: str
    remark: str


@dataclass(frozen=True, slots=True)
class ShownTrial:
    """A probed example ready for the template."""

    example: Example
    points: int
    pictures: tuple[ShownPicture, ...]


@dataclass(frozen=True, slots=True)
class ShownProbeResults:
    """A run of probes ready for the template."""

    name: str
    of: str
    tables: tuple[tuple[str, tuple[Line, ...]], ...]  # with their titles, none of them empty
    notes: tuple[str, ...]  # what the figures are of, in sentences
    plots: tuple[Markup, ...]
    groups: tuple[tuple[str, tuple[ShownTrial, ...]], ...]


def holds_probes(path: str | Path) -> bool:
    """Whether a run's folder is one of `opengrit probe`."""
    return "probe" in recipe_of(RunDir.open(path))


def read_probe_results(run: RunDir, name: str, *, images: Path | None = None) -> ProbeResults:
    """The probes in a run's folder, their pictures in `images` or where they were. Raises RunError where a line of it cannot be read."""
    recipe = recipe_of(run).get("probe")
    records = with_pictures(run, list(run.records()), images=images)
    found, _ = trials(records)
    most, least = telling_trials(found)
    attended = read_attention(run.path / ATTENTION)
    choices = read_choices(run.path / CHOICES)
    return ProbeResults(
        name=name,
        of=str(recipe.get("run", "")) if isinstance(recipe, Mapping) else "",
        scores=probe_scores(records),
        most=most,
        least=least,
        attention=attention_scores(attended) if attended else None,
        correlation=correlation_scores(choices) if choices else None,
    )


def print_probe_results(results: ProbeResults, console: Console) -> None:
    """Prints the scores, what they are of, and what is left out."""
    for title, lines in _tables(results, first=f"Does the evidence of {results.of} matter?"):
        table = Table(title=escape(harmless(title)), title_justify="left", caption_justify="left")
        for heading in ("", "value", "95 % interval", "n"):
            table.add_column(heading, justify="left" if heading == "" else "right")
        for line in lines:
            n = "" if line.cell.n is None else str(line.cell.n)
            table.add_row(escape(line.name), line.cell.text, escape(line.cell.interval or line.cell.why), n)
        console.print(table)
    for text in _notes(results):
        console.print(harmless(text), markup=False, highlight=False)


def show_probe_results(results: ProbeResults) -> ShownProbeResults:
    """A run of probes for the page: pictures are opened and greyed here, as they were asked about."""
    scores = results.scores
    rows = [
        Interval.of("changes when what it pointed at is grey", scores.changed[Probe.OCCLUDE]),
        Interval.of(
            "control: changes when random boxes are grey", scores.changed[Probe.SHUFFLE], series=None
        ),
        Interval.of("stays when everything else is grey (sufficiency)", scores.sufficiency, series=1),
    ]
    plots: list[Markup] = []
    groups: tuple[tuple[str, tuple[ShownTrial, ...]], ...] = ()
    if any(scores.compared.values()):
        plots.append(interval_plot(rows, title="Share of answers", x_label="share, 95 % interval"))
        groups = (
            ("Most faithful", tuple(_show(trial) for trial in results.most)),
            ("Least faithful", tuple(_show(trial) for trial in results.least)),
        )
    if results.attention is not None and results.attention.num_read:
        plots.append(attention_plot(results.attention))
    return ShownProbeResults(
        name=results.name,
        of=results.of,
        tables=_tables(results, first="Probe"),
        notes=_notes(results),
        plots=tuple(plots),
        groups=groups,
    )


def _tables(results: ProbeResults, *, first: str) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    tables = (
        (first, _lines(results.scores)),
        (ATTENTION_TITLE, attention_lines(results.attention)),
        ("Do the boxes fit the words?", _correlation_lines(results.correlation)),
    )
    return tuple((title, lines) for title, lines in tables if lines)


def _notes(results: ProbeResults) -> tuple[str, ...]:
    notes = _counts(results.scores) if _lines(results.scores) else ()
    if results.attention is not None:
        notes += attention_notes(results.attention)
    return notes if results.correlation is None else (*notes, _correlation_note(results.correlation))


def _lines(scores: ProbeScores) -> tuple[Line, ...]:
    """The table; nothing where no probe was asked."""
    if not any(scores.compared.values()) and not any(_asked(scores, probe) for probe in Probe):
        return ()
    none = "no answer is compared"
    greys = {
        Probe.OCCLUDE: "what it pointed at",
        Probe.KEEP: "all but what it pointed at",
        Probe.SHUFFLE: "random boxes",
    }

    def share(found: Estimate) -> Cell:
        return value_cell(found, Unit.SHARE, none)

    def points(found: Estimate) -> Cell:
        return difference_cell(found, Unit.SHARE, none)

    lines = [
        Line(
            "Necessity, points",
            points(scores.necessity),
            "changes under occlude minus changes under shuffle, paired: above 0 if the boxes matter more than random "
            "ones",
        ),
        Line(
            "Sufficiency",
            share(scores.sufficiency),
            "stays under keep: high if the boxes are enough to answer",
        ),
        Line(
            "Keep over occlude, points",
            points(scores.kept_over_occluded),
            "stays under keep minus stays under occlude, paired",
        ),
    ]
    lines += [
        Line(f"Answers that change, {greys[probe]} grey", share(scores.changed[probe]), probe.value)
        for probe in Probe
    ]
    lines.append(
        Line("Accuracy, nothing grey", share(scores.accuracy_asked), "of the answers that were probed")
    )
    for probe in Probe:
        lines.append(Line(f"Accuracy, {greys[probe]} grey", share(scores.accuracy[probe]), probe.value))
        lines.append(
            Line("difference, points", points(scores.accuracy_gain[probe]), "paired with nothing grey")
        )
    return tuple(lines)


def _asked(scores: ProbeScores, probe: Probe) -> int:
    return scores.num_probed - scores.lost[probe].get(Lost.NOT_ASKED, 0)


def _counts(scores: ProbeScores) -> tuple[str, ...]:
    """What the scores are of, in sentences."""
    left_out = ", ".join(f"{count} {reason.value}" for reason, count in scores.unprobed.items())
    found = [
        f"{scores.num_probed} of {scores.num_answers} answers are probed"
        + (f"; not probed: {left_out}." if left_out else ".")
    ]
    for probe in Probe:
        lost = ", ".join(f"{count} {reason.value}" for reason, count in scores.lost[probe].items())
        found.append(
            f"{probe.value}: {scores.compared[probe]} compared" + (f"; left out: {lost}." if lost else ".")
        )
    return tuple(found)


def _correlation_lines(scores: CorrelationScores | None) -> tuple[Line, ...]:
    if scores is None:
        return ()
    none = "the judge chose nothing"
    repeats = ", ".join(f"{share * 100:.1f}" for share in scores.repeats)
    spread = Cell(DASH, why=none)
    if scores.mean is not None:
        sd = "one repeat has no spread" if scores.sd is None else f"sd {scores.sd * 100:.1f}"
        spread = Cell(f"{scores.mean * 100:.1f} %", interval=f"{sd} over repeats {repeats}")
    return (
        Line("The model's boxes picked", value_cell(scores.share, Unit.SHARE, none), "guessing gives 50 %"),
        Line("the same, mean of repeats", spread, "as the paper reports it"),
        Line(
            "control: random boxes in their place",
            value_cell(scores.control, Unit.SHARE, none),
            "about 50 % unless the judge is biased",
        ),
    )


def _correlation_note(scores: CorrelationScores) -> str:
    first = (
        ""
        if scores.picture_a is None
        else f", {scores.picture_a * 100:.1f} % of them on the picture shown first"
    )
    reasons = "; ".join(f"{count} x {reason}" for reason, count in scores.reasons.items())
    failed = f" {scores.failed} questions failed and are left out: {reasons}." if scores.failed else ""
    return f"Judge {scores.judge}: {scores.num_choices} choices{first}.{failed}"


def _show(trial: Trial) -> ShownTrial:
    whole: Image.Image | NoPicture
    try:
        whole = open_picture(trial.asked.example.image)
    except ImageError as error:
        whole = NoPicture(str(error))
    pictures = [_shown_picture("as asked", whole, trial.asked, "")]
    for probe in Probe:
        stayed = trial.stayed(probe)
        remark = stayed.value if isinstance(stayed, Lost) else "stays" if stayed else "changes"
        picture = whole
        if not isinstance(whole, NoPicture):
            picture = greyed(whole, hidden_boxes(trial.asked, probe, seed=BOOTSTRAP_SEED), probe)
        pictures.append(_shown_picture(probe.value, picture, trial.under[probe], remark))
    return ShownTrial(trial.asked.example, trial.faithfulness or 0, tuple(pictures))


def _shown_picture(title: str, picture: Image.Image | NoPicture, record: Record, remark: str) -> ShownPicture:
    found = picture if isinstance(picture, NoPicture) else embed(picture, _SHOWN_SIDE)
    verdict = "not judged"
    if isinstance(record.verdict, Verdict):
        verdict = "right" if record.verdict.correct else "wrong"
    return ShownPicture(title, found, record.transcript.answer or "", verdict, remark)
