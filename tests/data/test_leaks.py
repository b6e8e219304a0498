"""Leaks: what two splits share is counted and named, whatever its file or id is called."""

import pytest
from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment

from masr.data.leaks import refuse_leaks


def cut(name, file="", start=0.0, duration=2.0, channel=0, text="", speaker="", language="es"):
    """A cut of a file of 100 s, which by default is a file of its own; several channels make a MultiCut."""
    file = file or name
    sources = [AudioSource("file", [0, 1], f"/somewhere/{file}.wav")]
    recording = Recording(name, sources, sampling_rate=16000, num_samples=1600000, duration=100.0)
    said = SupervisionSegment(
        name, name, 0.0, duration, text=text or name, language=language, speaker=speaker or f"who reads {name}"
    )
    kind = MultiCut if isinstance(channel, list) else MonoCut
    return kind(name, start, duration, channel, [said], recording=recording, custom={"audio_hash": f"hash of {file}"})


def leaks(disjoint=(), training=("train",), **splits):
    """The message of the error; empty without one."""
    try:
        refuse_leaks(splits, training, disjoint)
    except ValueError as error:
        return str(error)
    return ""


def test_splits_that_share_nothing_pass():
    assert leaks(train=[cut("a"), cut("b")], dev=[cut("c")], test=[cut("d")], disjoint=["text", "speaker"]) == ""


def test_an_id_of_two_splits_is_counted_and_named_with_the_way_out():
    train = [cut(f"r{i}") for i in range(9)]
    test = [cut(f"r{i}", file=f"other file {i}") for i in range(4, 9)]
    message = leaks(train=train, dev=[cut("d")], test=test)
    assert message == (
        "corpus: 5 recordings have an id that another split has, too (first: r4 in train and test, r5 in train and "
        "test, r6 in train and test). train and test overlap: choose others with corpus.train, corpus.dev and "
        "corpus.test, or take these recordings out of one of them"
    )


def test_the_same_audio_under_another_name_is_found():
    message = leaks(train=[cut("a", file="x")], dev=[cut("b", file="x")])
    assert message.startswith("corpus: 1 recording has audio that another split has, too (first: a in train is b in")


def test_test_splits_are_compared_with_each_other():
    assert "x in dev is y in test" in leaks(train=[cut("a")], dev=[cut("x", file="f")], test=[cut("y", file="f")])


@pytest.mark.parametrize(("start", "leaks_out"), [(2.0, False), (1.96, False), (1.94, True), (0.5, True), (0.0, True)])
def test_segments_of_one_file_may_be_in_two_splits_if_they_do_not_overlap(start, leaks_out):
    train = [cut("a", file="talk", start=10.0), cut("z", file="talk", start=50.0)]
    assert bool(leaks(train=train, test=[cut("b", file="talk", start=10 + start)])) == leaks_out


def test_a_long_segment_is_compared_with_all_that_begin_before_it_ends():
    train = [cut("long", file="talk", duration=90.0), cut("short", file="talk", start=1.0, duration=0.5)]
    message = leaks(train=train, test=[cut("b", file="talk", start=60.0)])
    assert "long in train is b in test" in message


def test_two_channels_of_a_conversation_are_different_audio_and_their_mixture_is_neither_apart():
    left, right = cut("left", file="call", channel=0), cut("right", file="call", channel=1)
    assert leaks(train=[left], test=[right]) == ""
    both = cut("both", file="call", channel=[0, 1])
    message = leaks(train=[left], test=[both])
    assert message.startswith("corpus: 1 recording has audio"), "a recording is counted once, not for each channel"


def test_very_short_recordings_are_compared_too():
    assert leaks(train=[cut("a", file="x", duration=0.04)], test=[cut("b", file="x", duration=0.04)])


def test_what_is_trained_on_with_and_without_text_may_be_the_same():
    """As the ten hours of MLS with text, and all of it without."""
    hours = {"train": [cut("a")], "unlabelled": [cut("a"), cut("b")]}
    assert leaks(training=["train", "unlabelled"], **hours, dev=[cut("c")]) == ""
    assert "b in unlabelled and dev" in leaks(training=["train", "unlabelled"], **hours, dev=[cut("b")])


def test_texts_are_compared_on_request_by_language_and_between_training_and_the_others():
    splits = {
        "train": [cut("a", text="sí"), cut("b", text="no")],
        "dev": [cut("c", text="vale")],
        "test": [cut("d", text="vale"), cut("e", text="no", language="it"), cut("f", text="sí")],
    }
    assert leaks(**splits) == ""
    message = leaks(**splits, disjoint=["text"])
    assert "1 recording has a text that another split has, too (first: a in train is f in test)" in message
    assert message.endswith("or ask for less with corpus.disjoint")


def test_recordings_without_text_share_none():
    silent = {name: cut(name) for name in "ab"}
    for one in silent.values():
        one.supervisions[0].text = ""
    assert leaks(train=[silent["a"]], dev=[silent["b"]], disjoint=["text"]) == ""


def test_speakers_are_compared_on_request():
    splits = {"train": [cut("a", speaker="Ana")], "dev": [cut("c", speaker="Ana")], "test": [cut("d", speaker="Eva")]}
    assert leaks(**splits) == ""
    assert "1 recording has a speaker that another split has, too (first: a in train is c in dev)" in leaks(
        **splits, disjoint=["speaker"]
    )


def test_speakers_that_are_not_known_cannot_be_compared():
    unknown = cut("c")
    unknown.supervisions[0].speaker = None
    message = leaks(train=[cut("a")], dev=[unknown], disjoint=["speaker"])
    assert message.startswith("corpus.disjoint: 1 of 1 recordings of dev have no speaker (first: c)")


def test_many_segments_of_one_file_are_compared_in_a_moment():
    """Each with each would be 10^10 comparisons."""
    many = 50000
    train = [cut(f"a{i}", file="f", start=i * 2.0) for i in range(many)]
    test = [cut(f"b{i}", file="f", start=i * 2.0) for i in range(many, 2 * many)]
    assert leaks(train=train, test=test) == ""
