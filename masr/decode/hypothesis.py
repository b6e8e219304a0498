"""What every search method returns."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Phrase:
    """A part of a transcript that Whisper has put times around, in seconds from the beginning of the utterance."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Judgement:
    """How sure a Whisper is of what it wrote for an utterance, or of there being nothing to write."""

    log_probability: float
    """Mean natural log-probability of the tokens and the end, at most 0."""
    no_speech_probability: float | None
    """Of there being no speech, 0 to 1; None from a Whisper without a token for it."""
    language_probabilities: dict[str, float]
    """Of the languages that were allowed; they sum to 1."""
    compression_ratio: float
    """Bytes of the text by bytes of its zlib compression: large where a text repeats itself; 0 of an empty text."""
    temperature: float
    """At which the tokens were drawn; 0: the search."""
    silent: bool = False
    """Whether it was taken for silence, so that the transcript is empty and the text that it is about was dropped."""


@dataclass
class Hypothesis:
    """One candidate transcript of one utterance.

    ``tokens`` are vocabulary ids without blank, start or end. ``score`` is the total log-probability
    (natural log) by which hypotheses were ranked; ``parts`` holds its components by name, e.g.
    ``{"ctc": -3.1, "attention": -2.4}``. ``timestamps`` has one ``(start, end)`` in seconds per token. ``language`` is
    the one that the search took it for, if it did.
    """

    tokens: list[int]
    score: float
    parts: dict[str, float] = field(default_factory=dict)
    text: str = ""
    timestamps: list[tuple[float, float]] = field(default_factory=list)
    language: str | None = None
    judgement: Judgement | None = None
    """From the method ``whisper``."""
    phrases: list[Phrase] = field(default_factory=list)
    """From the method ``whisper`` with timestamps."""
