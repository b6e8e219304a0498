"""Cuts that are not one text of a part of one recording are rejected with the reason, and nothing crashes."""

import math

import pytest
from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut import PaddingCut

from masr.config import Config, Data
from masr.data.contract import contract_problem
from masr.data.rejected import Rejected
from masr.stages.prepare import _usable


def recording(channels=1):
    sources = [AudioSource("file", list(range(channels)), "/nowhere/talk.wav")]
    return Recording("talk", sources, sampling_rate=16000, num_samples=160000, duration=10.0)


def said(start=0.0, duration=2.0, text="hola", language="es"):
    return SupervisionSegment("s", "talk", start, duration, text=text, language=language, speaker="ana")


def cut(supervisions=None, start=1.0, duration=2.0, channel=0, of=None):
    supervisions = [said()] if supervisions is None else supervisions
    return MonoCut("x", start, duration, channel, supervisions, recording=of or recording())


FOUR = [said(start, 2.0, text) for start, text in [(0.0, "uno"), (2.0, "dos"), (4.0, "tres"), (6.0, "cuatro")]]
BAD = {
    "none": (cut([]), "0 supervisions; expected one"),
    "four in a whole recording": (cut(FOUR, 0.0, 10.0), "4 supervisions; expected one, .*trim_to_supervisions"),
    "no language": (cut([said(language=None)]), "language: expected a code of letters and digits, found None"),
    "a number as language": (cut([said(language=5)]), "language: expected a code of letters and digits, found 5"),
    "a number as text": (cut([said(text=5)]), "text: expected a string, found 5"),
    "no text": (cut([said(text=None)]), "empty transcript"),
    "NaN as start": (cut(start=math.nan), "start: expected seconds, found nan"),
    "NaN as duration": (cut(duration=math.nan), "duration: expected seconds, found nan"),
    "endless": (cut(duration=math.inf), "duration: expected seconds, found inf"),
    "NaN in the supervision": (cut([said(math.nan)]), "start of the supervision: expected seconds, found nan"),
    "before the recording": (cut(start=-1.0), "begins at -1.00 s and lasts 2.00 s"),
    "backwards": (cut(duration=-1.0), "begins at 1.00 s and lasts -1.00 s"),
    "of no length": (cut(duration=0.0), "begins at 1.00 s and lasts 0.00 s"),
    "behind the recording": (cut(start=9.0), "ends at 11.00 s, but its recording has 10.00 s"),
    "text of a part": (cut([said(0.0, 1.0)]), "from 0.00 to 1.00 s of the cut, which has 2.00 s; expected all of it"),
    "text of more": (cut([said(-1.0, 3.0)]), "its text is said from -1.00 to 2.00 s of the cut"),
    "a channel that is not there": (cut(channel=1), "channel 1 of a recording that has 0"),
    "no recording": (MonoCut("x", 0.0, 2.0, 0, [said()]), "no recording"),
    "padding": (PaddingCut("x", 2.0, 16000, -23.0, num_samples=32000), "a PaddingCut; expected a part of one"),
}


@pytest.mark.parametrize(("wrong", "reason"), BAD.values(), ids=BAD)
def test_a_cut_that_breaks_the_contract_is_rejected_with_its_reason(wrong, reason, tmp_path):
    rejected = Rejected(tmp_path / "rejected.tsv")
    config = Config(name="x", data=Data(max_bad_fraction=1.0))
    assert list(_usable([wrong], config, rejected, heard_only=False, bad_rows=set())) == []
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejected.reasons["x"])


def test_a_cut_that_keeps_it_passes_and_times_may_disagree_a_little():
    two = recording(channels=2)
    for good in (
        cut(),
        cut([said(0.04, 2.0)]),
        cut(start=8.04),
        cut(channel=1, of=two),
        MultiCut("x", 0.0, 2.0, [0, 1], [said()], recording=two),
        cut([said(text=None)]),
    ):
        assert contract_problem(good) is None
