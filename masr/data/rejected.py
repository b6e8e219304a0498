"""Recordings that are left out: counted, listed in a file, skipped.

There are two kinds. Defects: too many of them stop the stage. Recordings outside a limit that was chosen on purpose
(``data.min_seconds``, ``data.max_seconds``, the longest text of the decoder): any number of them may be left out.
"""

from pathlib import Path

from masr.files import write_whole
from masr.progress import printable, say

LIMIT = "limit: "
"""Before the reason of what a limit leaves out, in the list."""


class TooManyRejected(ValueError):
    """More recordings were unusable than ``data.max_bad_fraction`` allows."""


class Rejected:
    """Collects ``(id, reason)`` and writes them to ``path`` as tab-separated lines."""

    def __init__(self, path: Path):
        self.path = path
        self.reasons: dict[str, str] = {}
        """Defects by utterance."""
        self.repeated: list[tuple[str, str]] = []
        """Defects of further utterances whose id was rejected already."""
        self.outside: list[tuple[str, str]] = []
        """What a limit leaves out."""

    def __len__(self) -> int:
        """Recordings of both kinds."""
        return len(self.defects()) + len(self.outside)

    def add(self, utterance: str, reason: str) -> None:
        """Counts a defect."""
        if utterance in self.reasons:
            self.repeated.append((utterance, reason))
        else:
            self.reasons[utterance] = reason

    def leave_out(self, utterance: str, reason: str) -> None:
        """Counts a recording outside a limit."""
        self.outside.append((utterance, reason))

    def defects(self) -> list[tuple[str, str]]:
        """Id and reason of each."""
        return [*self.reasons.items(), *self.repeated]

    def finish(self, what: str, total: int, max_fraction: float) -> None:
        """Writes the list and a summary line for each kind.

        Raises TooManyRejected for more defects than ``max_fraction`` of those of ``total`` recordings that the limits
        leave.
        """
        if not len(self):
            self.path.unlink(missing_ok=True)
            return
        self._write()
        if self.outside:
            say(f"{what}: {len(self.outside)} of {total} recordings left out by a limit {self._first(self.outside)}")
        if not self.defects():
            return
        within = total - len(self.outside)
        count = len(self.defects())
        summary = f"{what}: {count} of {within} recordings skipped {self._first(self.defects())}"
        if count > max_fraction * within:
            raise TooManyRejected(
                f"{summary}. That is more than data.max_bad_fraction={max_fraction:g}: mend them or raise it."
            )
        say(summary)

    def _first(self, rows: list[tuple[str, str]]) -> str:
        utterance, reason = printable(rows[0][0]), _one_line(rows[0][1])
        return f"(first: {utterance}: {reason}); all in {self.path}"

    def _write(self) -> None:
        lines = [f"{printable(utterance)}\t{_one_line(reason)}\n" for utterance, reason in self.defects()]
        for utterance, reason in self.outside:
            lines.append(f"{printable(utterance)}\t{LIMIT}{_one_line(reason)}\n")
        once = dict.fromkeys(lines)  # a recording may be in several splits
        write_whole(self.path, "".join(once))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
