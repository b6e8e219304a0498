"""The code of docs/ runs as it stands there, and the shipped model recognises speech."""

import re
from pathlib import Path

import pytest

import masr

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks or page.stem == "decoding"
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    if page.stem == "one-recording":
        assert names["errors"] < 0.6 * len(names["reference"])


def test_the_shipped_model_recognises_its_languages():
    """Romanian, its best one, on recordings it has not trained on."""
    from masr.corpora import freevoices
    from masr.data.features import load_audio
    from masr.score.errors import align
    from masr.text.normalize import normalize

    cuts = freevoices.read(ROOT / "egs/freevoices/corpus", ["ro"])["test"][:10]
    transcripts = masr.load("freevoices").transcribe([load_audio(cut) for cut in cuts])
    references = [normalize(cut.supervisions[0].text, "ro") for cut in cuts]
    pairs = [p for r, t in zip(references, transcripts, strict=True) for p in align(list(r), list(t.text))]
    assert sum(one != other for one, other in pairs) < 0.5 * sum(map(len, references))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("README.md", "any number of processes"),
        ("docs/soups.md", "two processes give what one gives"),
        ("masr/config.py", "summed over all processes"),
        ("masr/train/trainer.py", "whatever the number of processes"),
    ],
)
def test_what_holds_only_without_dropout_says_so(file, words):
    """Dropout's random numbers belong to a process, so losses are equal on any number of processes only without it."""
    text = " ".join((ROOT / file).read_text(encoding="utf-8").split())
    at = text.index(words)
    assert "without dropout" in text[at - 100 : at + 200].lower()
