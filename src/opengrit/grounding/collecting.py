"""What a scan has found so far and what is still open: brackets, points in a row, bare numbers, named corners."""

from __future__ import annotations

from collections.abc import Sequence

from opengrit.core.types import Rejection
from opengrit.grounding.candidates import Bracket, Candidate, Cue, Key, Label, Run, both_units, share_labels
from opengrit.grounding.corners import Corners, corner_point, edge
from opengrit.grounding.strings import quoted_numbers
from opengrit.grounding.tokens import MAX_LABEL


class Collector:
    """The candidates in `found`, not yet in order, and the stack of open brackets they come from."""

    def __init__(self) -> None:
        self.found: list[Candidate] = []
        self.stack = [Bracket("", 0, bare=False)]
        self.num_open = {"[": 0, "(": 0, "{": 0}
        self.run = Run()
        self.points = Run()
        self.corners: Corners | None = None
        self.last_corners: tuple[Bracket | None, dict[int, float]] = (None, {})
        self.in_box_token = False
        self.in_relation = False
        self.ref_label: str | None = None
        self.at_end = False  # of the text: what is open now is unfinished

    @property
    def top(self) -> Bracket:
        """The innermost open bracket; outside of all, one that never closes."""
        return self.stack[-1]

    @property
    def _reason(self) -> Rejection:
        """Why a part of a box is none."""
        return Rejection.UNFINISHED if self.at_end else Rejection.NOT_FOUR_NUMBERS

    # Candidates

    def add(
        self,
        numbers: Sequence[float],
        start: int,
        end: int,
        *,
        reason: Rejection | None = None,
        unit: str = "",
    ) -> None:
        """Numbers in the form of a box inside the innermost bracket."""
        top = self.top
        found = Candidate(tuple(numbers), start, end, None, reason, unit, key_name=top.key_name)
        self.keep(found, top.owner)

    def keep(self, found: Candidate, owner: Bracket | None) -> None:
        """A candidate, whose label may stand in the object `owner`."""
        if self.corners is not None:
            self.end_corners()
        self.top.found = True
        if self.in_relation and self.in_box_token:
            return
        found.label = found.label or self.ref_label
        self.found.append(found)
        if owner is not None:
            owner.entries.append(found)

    # Brackets

    def open(self, bracket: Bracket) -> None:
        """A bracket opens inside the innermost one."""
        self.stack.append(bracket)
        self.num_open[bracket.opener] += 1

    def pop(self, end: int) -> Bracket:
        """Close the innermost bracket; `end` is where its text ends if it is a number list."""
        bracket = self.stack.pop()
        self.num_open[bracket.opener] -= 1
        if bracket.bare:
            self._close_list(bracket, end)
        elif bracket.opener == "{":
            self._close_object(bracket)
        self._close_loose(bracket)
        return bracket

    def close_all(self) -> None:
        """A tag, a token or the end of the text ends every open bracket."""
        while len(self.stack) > 1:
            bracket = self.stack.pop()
            if bracket.opener == "{":
                share_labels(bracket.entries)
            self._close_loose(bracket)
        self.num_open = dict.fromkeys(self.num_open, 0)

    def interrupt(self, bracket: Bracket, *, by_key: bool = False) -> None:
        """What belongs in no list of numbers follows some: they are a box where a key comes, or where one was meant."""
        if not bracket.bare:
            return
        bracket.bare = False
        count, end = len(bracket.numbers), bracket.numbers_end
        if bracket.cue is Cue.POINT or not count:
            return
        if count < 4:
            self.loose(bracket, end, count)
            return
        bracket.kept = _candidate(bracket, end)
        if not by_key and bracket.cue is not Cue.BOX:
            bracket.kept.reason = Rejection.NOT_FOUR_NUMBERS
        self.keep(bracket.kept, bracket.owner)

    def loose(self, bracket: Bracket, end: int, count: int = 1) -> None:
        """Numbers that end at `end` in a bracket that is no list of numbers."""
        if not bracket.loose or end - bracket.start <= MAX_LABEL:
            bracket.numbers_end = end
        bracket.loose += count
        if bracket.kept is not None:
            bracket.kept.reason = Rejection.NOT_FOUR_NUMBERS

    def name_boxes(self, owner: Bracket, words: str, priority: int) -> None:
        """Put a label among an object's boxes; of two in a row the one with the better key stays."""
        if not words.strip():
            return
        last = owner.entries[-1] if owner.entries else None
        if not isinstance(last, Label):
            owner.entries.append(Label(words.strip(), priority))
        elif priority < last.priority:
            last.text, last.priority = words.strip(), priority

    def _close_list(self, bracket: Bracket, end: int) -> None:
        count = len(bracket.numbers)
        slots = corner_point(bracket.key.name) if bracket.key is not None and count == 2 else None
        if slots is not None:
            for slot, number in zip(slots, bracket.numbers, strict=True):
                self._add_corner(slot, number, bracket.unit, bracket.start, end, is_point=True)
            return
        in_box = bracket.cue is Cue.BOX or (self.points.numbers and self.points.cue is Cue.BOX)
        is_point = count == 2 and (bracket.opener == "(" or in_box)
        if is_point and bracket.cue is not Cue.POINT:
            self._add_point(bracket, end)
            return
        self.flush_points()
        if bracket.cue is not Cue.POINT and count and (count >= 4 or bracket.cue is Cue.BOX):
            self.keep(_candidate(bracket, end), self.top.owner)

    def _close_object(self, bracket: Bracket) -> None:
        """Give the object's labels to its boxes; hand a nested name or box to the object around it."""
        share_labels(bracket.entries)
        outer = self.top.owner
        if outer is None or bracket.key is None or not bracket.entries:
            return
        priority = bracket.key.label_priority
        labels = [entry for entry in bracket.entries if isinstance(entry, Label)]
        if priority is not None and labels:
            self.name_boxes(outer, min(labels, key=lambda entry: entry.priority).text, priority)
        elif bracket.key.holds_box and not labels and len(bracket.entries) == 1:
            outer.entries.append(bracket.entries[0])

    def _close_loose(self, bracket: Bracket) -> None:
        """A bracket in which a box was meant holds numbers and no box: the outermost such bracket is rejected."""
        outer, corners = self.top, self.corners
        if bracket.opener == "{" and corners is not None and corners.start >= bracket.start:
            is_corner = bracket.key is not None and corner_point(bracket.key.name) is not None
            if corners.has_point and not is_corner:
                self.end_corners()
        if bracket.found or not bracket.loose:
            outer.found = outer.found or bracket.found
            return
        if bracket.cue is Cue.BOX or len(bracket.sides) == 4:
            pending = self.corners is not None and self.corners.start >= bracket.start
            if outer.cue is Cue.BOX and bracket.cue is Cue.BOX:
                self.loose(outer, bracket.numbers_end, bracket.loose)
            elif pending and self.corners is not None and self.corners.is_meant:
                self.end_corners()
            else:
                self.corners = None if pending else self.corners
                self.add([], bracket.start, bracket.numbers_end, reason=self._reason)
        outer.found = outer.found or bracket.found

    # Points in a row, bare numbers

    def flush(self) -> None:
        """Something else follows: points and bare numbers are complete."""
        self.flush_points()
        self.flush_run()

    def flush_points(self) -> None:
        """Two points in a row are a box; one is a point, three or more are an outline."""
        points, self.points = self.points, Run()
        is_box = len(points.numbers) == 4
        if not is_box and (not points.numbers or points.cue is not Cue.BOX):
            return
        found = Candidate(tuple(points.numbers), points.start, points.end, unit=points.unit)
        if is_box:
            found.label, found.key_name = points.label, points.key_name
        else:
            found.reason = self._reason if len(points.numbers) == 2 else Rejection.NOT_FOUR_NUMBERS
        self.keep(found, points.owner if is_box else None)

    def flush_run(self, *, cut: bool = False) -> None:
        """Four bare numbers are a box where the text says so; those that a token limit may have `cut` are unfinished."""
        run, self.run = self.run, Run()
        if run.cue is not Cue.BOX or len(run.numbers) < (1 if self.in_box_token else 3):
            return
        reason = None if len(run.numbers) == 4 else Rejection.NOT_FOUR_NUMBERS
        self.add(
            run.numbers, run.start, run.end, reason=Rejection.UNFINISHED if cut else reason, unit=run.unit
        )

    def corner_in_quotes(self, key: Key, words: str, start: int, end: int) -> bool:
        """Whether the string value of a corner's key is its two numbers: "top_left": "10, 20"."""
        slots, (found, rest) = corner_point(key.name), quoted_numbers(words)
        if slots is None or len(found) != 2 or rest:
            return False
        for slot, (_, value, unit) in zip(slots, found, strict=True):
            self._add_corner(slot, value, unit, start, end, is_point=True)
        return True

    def numbers_in_quotes(self, words: str, start: int, end: int) -> None:
        """The string value of a box key: four numbers, named or not, or a rejection where it has numbers at all."""
        found, rest = quoted_numbers(words)
        edges = {edge(name): value for name, value, _ in found}
        unit = ""
        for _, _, written in found:
            unit = both_units(unit, written)
        if len(found) == 4 and edges.keys() == {0, 1, 2, 3} and not rest:
            self.add([edges[slot] for slot in range(4)], start, end, unit=unit)
        elif len(found) > 2 or (found and not rest):
            is_box = len(found) == 4 and not rest and not any(name for name, _, _ in found)
            reason = None if is_box else Rejection.NOT_FOUR_NUMBERS
            self.add([value for _, value, _ in found], start, end, reason=reason, unit=unit)

    def _add_point(self, bracket: Bracket, end: int) -> None:
        points = self.points
        if not points.numbers:
            points = self.points = Run(bracket.cue, [], bracket.start, label=bracket.label)
            points.owner, points.key_name = self.top.owner, bracket.key_name
        points.numbers += bracket.numbers
        points.unit, points.end = both_units(points.unit, bracket.unit), end

    # Named corners

    def take_corner(self, key: Key, value: float, unit: str, start: int, end: int) -> bool:
        """Whether the number after a key is an edge of a box: "x1": 10, or "x": 10 in the value of "top_left"."""
        around = self.top.key
        slots = corner_point(around.name) if around is not None else None
        slot = edge(key.name) if self.corners is None else self.corners.slot(key.name)
        if slots is not None and key.name.lower() in ("x", "y"):
            slot = slots[key.name.lower() == "y"]
        if slot is None:
            return False
        self._add_corner(slot, value, unit, start, end, is_point=slots is not None)
        if self.corners is not None and key.name.lower() in ("x0", "y0"):
            self.corners.from_zero = True
        return True

    def end_corners(self) -> None:
        """Edges without the others are a box that was meant where they are three, or a corner by name."""
        corners, self.corners = self.corners, None
        self.last_corners = (None, {})
        if corners is not None and corners.is_meant:
            numbers = list(corners.edges.values())
            self.add(numbers, corners.start, corners.end, reason=self._reason)

    def _add_corner(
        self, slot: int, value: float, unit: str, start: int, end: int, *, is_point: bool = False
    ) -> None:
        owner, last = self.last_corners
        if is_point and self.corners is None and last.get(slot) == value and owner is self.top.owner:
            return  # the third and fourth corner of a box that two corners have given
        same = is_point and self.corners is not None and self.corners.edges.get(slot) == value
        if self.corners is not None and slot in self.corners.edges and not same:
            self.end_corners()
        if self.corners is None:
            self.corners = Corners(start, end)
        corners = self.corners
        corners.edges[slot], corners.end = value, end
        corners.unit = both_units(corners.unit, unit)
        corners.has_point = corners.has_point or is_point or self.in_box_token
        numbers = corners.numbers
        if numbers is not None:
            self.corners, self.last_corners = None, (self.top.owner, corners.edges)
            self.add(numbers, corners.start, end, unit=corners.unit)


def _candidate(bracket: Bracket, end: int) -> Candidate:
    """The numbers of a list as a box, if there are four."""
    reason = None if len(bracket.numbers) == 4 else Rejection.NOT_FOUR_NUMBERS
    numbers = tuple(bracket.numbers)
    return Candidate(
        numbers, bracket.start, end, bracket.label, reason, bracket.unit, key_name=bracket.key_name
    )
