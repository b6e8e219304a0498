"""What every search method returns."""

from dataclasses import dataclass, field


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
