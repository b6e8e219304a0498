"""Recordings that cannot be used: counted, listed in a file, skipped; too many of them stop the stage."""

from pathlib import Path

from masr.files import write_whole
from masr.progress import printable, say


class TooManyRejected(ValueError):
    """More recordings were unusable than ``data.max_bad_fraction`` allows."""


class Rejected:
    """Collects ``(id, reason)`` and writes them to ``path`` as tab-separated lines."""

    def __init__(self, path: Path):
        self.path = path
        self.reasons: dict[str, str] = {}

    def add(self, utterance: str, reason: str) -> None:
        self.reasons[utterance] = reason

    def finish(self, what: str, total: int, max_fraction: float) -> None:
        """Writes the list and one summary line; raises TooManyRejected above ``max_fraction`` of ``total``."""
        if not self.reasons:
            self.path.unlink(missing_ok=True)
            return
        self.reasons = {name: " ".join(reason.split()) for name, reason in self.reasons.items()}
        lines = [f"{printable(utterance)}\t{printable(reason)}\n" for utterance, reason in self.reasons.items()]
        write_whole(self.path, "".join(lines))
        utterance, reason = next(iter(self.reasons.items()))
        utterance, reason = printable(utterance), printable(reason)
        count = f"{what}: {len(self.reasons)} of {total} recordings skipped"
        summary = f"{count} (first: {utterance}: {reason}); all in {self.path}"
        if len(self.reasons) > max_fraction * total:
            raise TooManyRejected(
                f"{summary}. That is more than data.max_bad_fraction={max_fraction:g}: mend them or raise it."
            )
        say(summary)
