"""BLEU of languages with and without spaces between words."""

import pytest

from masr.score.translation import compute_metrics


def rows(into: str, reference: str, hypothesis: str) -> list[dict]:
    given = {"id": "a", "language": "cs", "into": into, "reference": reference, "hypothesis": hypothesis}
    return [given | {"seconds": 0.1, "duration": 1.0, "id": str(number)} for number in range(3)]


@pytest.mark.parametrize(
    ("into", "reference", "hypothesis"),
    [
        ("en", "The frog is as green as ever.", "The frog is as green as ever."),
        ("zh", "这只青蛙和以前一样绿。", "这只青蛙和以前一样绿！"),
    ],
)
def test_bleu_counts_what_the_language_is_written_in(into, reference, hypothesis):
    found = compute_metrics(rows(into, reference, hypothesis), "title", {})
    assert found["macro"]["bleu"]["score"] > 60
    assert f"tok:{'zh' if into == 'zh' else '13a'}" in found["signatures"]["bleu"]
