"""What recognition returns: words, segments of speech, and the transcript of a recording. Times are in seconds."""

from dataclasses import dataclass, field


@dataclass
class Word:
    """A word, when it is spoken, and how sure the model is of it."""

    text: str
    start: float
    end: float
    confidence: float | None = None
    """From 0 to 1, see `masr.recognize.confidence`; None where the search has no posteriors to tell."""


@dataclass
class Segment:
    """What is said from ``start`` to ``end``, between two pauses."""

    text: str
    language: str | None = None
    words: list[Word] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None
    """Mean confidence of its words."""
    log_probability: float | None = None
    """Mean natural log-probability of its tokens under the recogniser alone: never above 0, whatever language models
    and scales decided."""
    no_speech_probability: float | None = None
    """Probability that nobody speaks, from 0 to 1."""
    languages: dict[str, float] = field(default_factory=dict)
    """Probability of each accepted language."""
    translation: str | None = None
    """Where it was asked for."""


@dataclass
class Transcript(Segment):
    """The transcript of a recording: the texts of its segments, joined."""

    segments: list[Segment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What was odd about the recording: cut short, samples far outside -1 to 1, channels in opposite phase."""
