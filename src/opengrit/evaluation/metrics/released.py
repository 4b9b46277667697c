"""GRIT's evaluation script as it was released, along with our own reading of it, so that published figures can be compared.

The script compares the numbers a model wrote with boxes in pixels of the original picture. Qwen2.5-VL writes pixels of
its resized input and the script does not scale them back, so a perfect model is marked down: never report one of these
figures without the rescaled one next to it.

Two differences from the script remain. It takes any run of four whole numbers for a box, we take what the parser
accepts; and it guesses the family from the experiment's name, we read the record's frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from opengrit.core.boxes import ROUNDING, Corners, box_iou, iou_of_unions
from opengrit.core.types import Record
from opengrit.evaluation.metrics.quantities import is_complete, is_measured
from opengrit.grounding.frames import Unit, frame_for
from opengrit.judges.answers import is_box_answer

# COCO's ten: 0.50, 0.55, ... 0.95.
AP_THRESHOLDS = tuple(hundredths / 100 for hundredths in range(50, 100, 5))


def unscaled_grounding_iou(record: Record) -> float | None:
    """The grounding IoU of the released script, 0 to 1: the written numbers taken for pixels of the original picture.

    Numbers of a 0-1000 frame are brought to pixels and cut to whole ones, as the script does; numbers of a pixel
    frame are left as they are, in the resized picture. A truncated completion counts like any other. 0 where no box is
    written; None where the row has no boxes, and in a frame the script does not know.
    """
    if not is_measured(record) or not record.example.boxes:
        return None
    written = _as_the_script_reads(record)
    if written is None:
        return None
    if not written:
        return 0.0
    size = record.example.picture_size
    return iou_of_unions(written, [box.to_pixels(size) for box in record.example.boxes])


def _as_the_script_reads(record: Record) -> list[Corners] | None:
    written = [pointing.written for pointing in record.transcript.pointings]
    size = record.example.picture_size
    match frame_for(record.frame, record.seen_size).unit:
        case Unit.PIXELS:
            return written
        case Unit.THOUSAND:
            wide, high = size.width / 1000, size.height / 1000
            return [(int(a * wide), int(b * high), int(c * wide), int(d * high)) for a, b, c, d in written]
        case Unit.UNIT:
            return None


def detection_ap(record: Record) -> float | None:
    """The accuracy GRIT gives to an OVDEval row, 0 to 1, with boxes brought back to the picture's frame.

    For each threshold of 0.50, 0.55, ... 0.95: one over the number of boxes written if any of them overlaps the true
    box by that IoU, else 0; the mean of the ten (the released evaluation script calls it mAP). It is a precision of
    an unranked set: a language model gives its boxes no confidence, so there is no curve under which to take an area,
    and OVDEval's own NMS-AP (arXiv 2308.13177) is another quantity. An overlap of just the threshold is a hit, as in
    COCO. None where the expected answer is no box, or the row has not just one.
    """
    if not is_complete(record) or not _is_detection(record):
        return None
    return _precision_of_a_set([box_iou(box, record.example.boxes[0]) for box in record.transcript.boxes])


def unscaled_detection_ap(record: Record) -> float | None:
    """The same as the released script computes it: the written numbers, of whatever frame, taken for pixels.

    It does so for InternVL too, whose boxes it brings to pixels only afterwards, for the grounding IoU.
    """
    if not is_measured(record) or not _is_detection(record):
        return None
    truth = record.example.boxes[0].to_pixels(record.example.picture_size)
    return _precision_of_a_set(
        [iou_of_unions([pointing.written], [truth]) for pointing in record.transcript.pointings]
    )


def _is_detection(record: Record) -> bool:
    return is_box_answer(record.example.answer) and len(record.example.boxes) == 1


def _precision_of_a_set(ious: Sequence[float]) -> float:
    if not ious:
        return 0.0
    reached = sum(max(ious) >= threshold - ROUNDING for threshold in AP_THRESHOLDS)
    return reached / len(AP_THRESHOLDS) / len(ious)
