"""What every cut that stage 0 lets through is: a part of one recording, and one text of all of that part."""

import math
from numbers import Real

from lhotse import MonoCut, MultiCut, SupervisionSegment
from lhotse.cut import Cut

TOLERANCE = 0.05
"""Seconds by which the times of a cut, its text and its recording may disagree."""
TRIM = "CutSet.trim_to_supervisions of lhotse makes a cut of each"


def contract_problem(cut: Cut) -> str | None:
    """Why a cut cannot be used, whatever its text is; None if it can. One whose recording has no samples is not asked
    for its times."""
    if not isinstance(cut, MonoCut | MultiCut):
        return f"a {type(cut).__name__}; expected a part of one recording"
    if not cut.has_recording:
        return "no recording"
    if len(cut.supervisions) != 1:
        return f"{len(cut.supervisions)} supervisions; expected one, of all of the cut ({TRIM})"
    if problem := _supervision_problem(cut.supervisions[0]):
        return problem
    if problem := _channel_problem(cut):
        return problem
    return _time_problem(cut) if cut.recording.num_samples else None


def _supervision_problem(supervision: SupervisionSegment) -> str | None:
    if not isinstance(supervision.text, str | None):
        return f"text: expected a string, found {supervision.text!r}"
    if not isinstance(supervision.language, str) or not supervision.language:
        return f"language: expected a code of letters and digits, found {supervision.language!r}"
    return None


def _channel_problem(cut: MonoCut | MultiCut) -> str | None:
    wanted = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    there = list(cut.recording.channel_ids)
    missing = [channel for channel in wanted if channel not in there]
    if not wanted or missing:
        return f"channel {', '.join(map(str, missing)) or 'none'} of a recording that has {', '.join(map(str, there))}"
    return None


def _time_problem(cut: MonoCut | MultiCut) -> str | None:
    """What is wrong with the seconds of a cut, within its recording, and of its supervision, within the cut."""
    supervision = cut.supervisions[0]
    times = {
        "start": cut.start,
        "duration": cut.duration,
        "start of the supervision": supervision.start,
        "duration of the supervision": supervision.duration,
    }
    for name, seconds in times.items():
        if not isinstance(seconds, Real) or not math.isfinite(seconds):
            return f"{name}: expected seconds, found {seconds!r}"
    if cut.start < 0 or cut.duration <= 0:
        return f"begins at {cut.start:.2f} s and lasts {cut.duration:.2f} s"
    if cut.end > cut.recording.duration + TOLERANCE:
        return f"ends at {cut.end:.2f} s, but its recording has {cut.recording.duration:.2f} s"
    if abs(supervision.start) > TOLERANCE or abs(supervision.end - cut.duration) > TOLERANCE:
        return (
            f"its text is said from {supervision.start:.2f} to {supervision.end:.2f} s of the cut, which has "
            f"{cut.duration:.2f} s; expected all of it ({TRIM})"
        )
    return None
