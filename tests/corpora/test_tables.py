"""Every reader takes tables as they come: what is no end of a row belongs to the text, and a bad row stops nothing."""

import ast
import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from masr.config import Config, Corpus, Data
from masr.corpora import corpus_module
from masr.corpora.tables import BadRow, read_rows, read_table, read_transcripts
from masr.data.rejected import TooManyRejected
from masr.files import text_lines
from masr.stages import prepare

SPLITS = {"train": 4, "dev": 1, "test": 1}


@dataclass
class Layout:
    """How a corpus is published: where its tables are, and what a row of them is."""

    table: Callable[[str], str]
    """File of a split."""
    audio: Callable[[str, int], str]
    row: Callable[[str, int, str], str]
    """(split, number, text)"""
    header: str = ""
    languages: tuple[str, ...] = ()
    names_recording: bool = False
    """Whether a row begins with the id of its recording, and recordings without a row are noticed."""


def _json_row(split: str, number: int, text: str) -> str:
    row = {"id": f"{split}{number}", "audio": f"{split}{number}.wav", "language": "ca", "split": split, "speaker": "s",
           "start": 0.0, "duration": 0.5, "text": text, "translation": {"en": text}}  # fmt: skip
    return json.dumps(row, ensure_ascii=False)


def _fleurs_row(split: str, number: int, text: str) -> str:
    return "\t".join([str(number), f"{split}{number}.wav", text, text, text, "8000", "FEMALE"])


LIBRISPEECH = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
AISHELL = {"train": "S0002", "dev": "S0724", "test": "S0764"}
SPEAKERS = {"train": 1, "dev": 4, "test": 5}

LAYOUTS = {
    "commonvoice": Layout(
        lambda split: f"ca/{split}.tsv",
        lambda split, number: f"ca/clips/{split}{number}.mp3",
        lambda split, number, text: f"s\t{split}{number}.mp3\t{text}\t2",
        "client_id\tpath\tsentence\tup_votes\n",
    ),
    "covost2": Layout(
        lambda split: f"ca/covost_v2.ca_en.{split}.tsv",
        lambda split, number: f"ca/clips/{split}{number}.mp3",
        lambda split, number, text: f"{split}{number}.mp3\t{text}\t{text}\ts",
        "path\tsentence\ttranslation\tclient_id\n",
    ),
    "fleurs": Layout(
        lambda split: f"ca_es/{split}.tsv",
        lambda split, number: f"ca_es/audio/{split}/{split}{number}.wav",
        _fleurs_row,
    ),
    "mls": Layout(
        lambda split: f"mls_german/{split}/transcripts.txt",
        lambda split, number: f"mls_german/{split}/audio/{SPEAKERS[split]}/20/{SPEAKERS[split]}_20_{number}.flac",
        lambda split, number, text: f"{SPEAKERS[split]}_20_{number}\t{text}",
        names_recording=True,
    ),
    "librispeech": Layout(
        lambda split: f"LibriSpeech/{LIBRISPEECH[split]}/{SPEAKERS[split]}/198/{SPEAKERS[split]}-198.trans.txt",
        lambda split, number: (
            f"LibriSpeech/{LIBRISPEECH[split]}/{SPEAKERS[split]}/198/{SPEAKERS[split]}-198-{number}.flac"
        ),
        lambda split, number, text: f"{SPEAKERS[split]}-198-{number} {text}",
        names_recording=True,
    ),
    "aishell": Layout(
        lambda split: "data_aishell/transcript/aishell_transcript_v0.8.txt",
        lambda split, number: f"data_aishell/wav/{split}/{AISHELL[split]}/BAC009{AISHELL[split]}W{number:04}.wav",
        lambda split, number, text: f"BAC009{AISHELL[split]}W{number:04} {text}",
        names_recording=True,
    ),
    "freevoices": Layout(
        lambda split: "manifest.jsonl", lambda split, number: f"{split}{number}.wav", _json_row
    ),
}  # fmt: skip


class Published:
    """A corpus of six recordings, whose training rows a test may spoil."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.layout = name, folder, LAYOUTS[name]
        for split, count in SPLITS.items():
            for number in range(count):
                self._add_audio(folder / self.layout.audio(split, number), number)
        self.file = folder / self.layout.table("train")
        self.write()

    def _add_audio(self, file: Path, number: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([*file.name.encode(), number]).normal(0, 0.1, 8000)
        soundfile.write(file, noise, 16000, format="MP3" if file.suffix == ".mp3" else None)

    def row(self, number: int, text: str = "u dos tres") -> bytes:
        """A training row."""
        return self.layout.row("train", number, text).encode()

    def write(self, *rows: bytes) -> None:
        """Writes all tables; ``rows``, without their ends, are those of the training split."""
        tables: dict[Path, list[bytes]] = {}
        for split, count in SPLITS.items():
            file = self.folder / self.layout.table(split)
            lines = tables.setdefault(file, [self.layout.header.encode()])
            own = [self.layout.row(split, number, "u dos tres").encode() for number in range(count)]
            if split == "train" and rows:
                own = list(rows)
            lines += [line + b"\n" for line in own]
        for file, lines in tables.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(lines))

    def where(self, row: int) -> str:
        return f"{self.file}:{row + 1 + bool(self.layout.header)}"

    def read(self) -> list:
        """Cuts and bad rows of the training split."""
        split = LIBRISPEECH["train"] if self.name == "librispeech" else "train"
        return list(corpus_module(self.name).read(self.folder)[split])

    def texts(self) -> list[str]:
        return [cut.supervisions[0].text for cut in self.read()]

    def config(self, tmp_path: Path, fraction: float = 0.5) -> Config:
        splits = LIBRISPEECH if self.name == "librispeech" else {split: split for split in SPLITS}
        corpus = Corpus(
            name=self.name, path=str(self.folder), train=splits["train"], dev=splits["dev"], test=[splits["test"]]
        )
        return Config(name="x", data_dir=str(tmp_path / "data"), corpus=corpus, data=Data(max_bad_fraction=fraction))

    def as_read(self, text: str) -> str:
        """AISHELL's reader takes out the spaces between words."""
        return "".join(text.split()) if self.name == "aishell" else text


@pytest.fixture(params=LAYOUTS)
def published(request, tmp_path) -> Published:
    return Published(request.param, tmp_path / "corpus")


def test_a_byte_order_mark_and_carriage_returns_and_empty_last_lines_change_nothing(published):
    before = published.texts()
    as_on_windows = published.file.read_bytes().replace(b"\n", b"\r\n")
    published.file.write_bytes(codecs.BOM_UTF8 + as_on_windows + b"\r\n\n  \n")
    assert published.texts() == before == [published.as_read("u dos tres")] * 4


def test_rows_that_only_carriage_returns_end_are_rows(published):
    published.file.write_bytes(published.file.read_bytes().replace(b"\n", b"\r"))
    assert published.texts() == [published.as_read("u dos tres")] * 4


def test_tables_joined_to_one_have_marks_inside(published):
    published.write(*(codecs.BOM_UTF8 + published.row(number) for number in range(4)))
    assert published.texts() == [published.as_read("u dos tres")] * 4


@pytest.mark.parametrize("separator", ["\r", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_what_ends_no_row_belongs_to_the_text(published, separator):
    text = f"u dos{separator}tres"
    if published.name == "freevoices" and separator < " ":
        pytest.skip("JSON writes these with a backslash")
    published.write(*(published.row(number, text) for number in range(4)))
    assert published.texts() == [published.as_read(text)] * 4


BAD = {
    "not UTF-8": lambda row: row.replace(b"u dos", b"u d\xfcs"),
    "NUL": lambda row: row.replace(b"u dos", b"u\0dos"),
    "cut short": lambda row: row[: row.index(b"u dos") - 1],
    "torn": lambda row: row.replace(b"u dos tres", b"u\ndos\ntres"),
    "no row": lambda row: b"???",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_stands_where_it_is_and_the_others_are_read(published, kind):
    published.write(*(published.row(number) for number in range(3)), BAD[kind](published.row(3)))
    bad = [row for row in published.read() if isinstance(row, BadRow)]
    good = [cut for cut in published.read() if not isinstance(cut, BadRow)]
    assert bad[0].where == published.where(3) or (kind == "torn" and published.layout.names_recording)
    assert len(bad) >= 1 and all(row.reason for row in bad)
    assert [cut.supervisions[0].text for cut in good][:3] == [published.as_read("u dos tres")] * 3


@pytest.mark.parametrize("kind", ["not UTF-8", "NUL", "cut short"])
def test_stage_0_lists_and_counts_a_bad_row_once_and_goes_on(published, kind, tmp_path, capsys):
    published.write(BAD[kind](published.row(0)), *(published.row(number) for number in range(1, 4)))
    config = published.config(tmp_path)
    prepare.run(config)
    listed = (tmp_path / "data/manifests/rejected.tsv").read_text(encoding="utf-8").split("\n")
    assert [line.split("\t")[0] for line in listed if line] == [published.where(0)]
    assert f"prepare: 1 of 6 recordings skipped (first: {published.where(0)}: " in capsys.readouterr().out
    assert len(prepare.read_cuts(prepare.manifests(config), config.corpus.train)) == 3


def test_too_many_bad_rows_stop_stage_0(published, tmp_path):
    published.write(*(BAD["not UTF-8"](published.row(number)) for number in range(2)), published.row(2))
    missing = int(published.layout.names_recording)  # the recording of the fourth row has no text then
    total = 5 + missing
    with pytest.raises(TooManyRejected, match=f"prepare: {2 + missing} of {total} recordings skipped .*not UTF-8 text"):
        prepare.run(published.config(tmp_path, fraction=0.3))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named_with_its_mark(published, encoding):
    published.file.write_bytes(published.file.read_text(encoding="utf-8").encode(encoding))
    with pytest.raises(ValueError, match=r":1: not UTF-8 text: it begins with the byte order mark \(BOM\) of UTF-16"):
        published.read()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table: "\u00ef\u00bb\u00bf" + table, r"byte order mark \(BOM\) that was encoded twice"),
        (lambda table: table.replace("path", "file"), "expected columns .* found no path$"),
    ],
)
@pytest.mark.parametrize("name", ["commonvoice", "covost2"])
def test_only_a_wrong_header_stops_and_says_why(name, spoil, reason, tmp_path):
    published = Published(name, tmp_path)
    columns = published.layout.header.split("\t")
    rest = published.file.read_text().split("\n", 1)[1]
    table = spoil("\t".join(["path", *(column for column in columns if column != "path")]) + rest)
    published.file.write_text(table, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        published.read()


def test_quotation_marks_hold_a_row_together_where_it_fits_only_so(tmp_path):
    file = tmp_path / "t.tsv"
    rows = ['a\t"b\tc"\td', 'a\t"b', 'c ""d"""\te', 'f\t"g\th', "i\tj\tk", '"l\tm"\tn', 'o\tp"\tq']
    file.write_text("\n".join(["x\ty\tz", *rows]) + "\n")
    found = list(read_table(file, ["z", "x", "y"]))
    assert found[:2] == [["d", "a", "b\tc"], ["e", "a", 'b\nc "d"']]
    assert found[2:] == [["h", "f", '"g'], ["k", "i", "j"], ["n", '"l', 'm"'], ["q", "o", 'p"']]


def test_a_quotation_mark_that_is_not_closed_takes_no_other_row(tmp_path):
    file = tmp_path / "t.tsv"
    file.write_text('a\t"b\nc\td\te\nf\t"g\n')
    bad, row, last = read_rows(file, 3)
    assert (bad.where, row, last.where) == (f"{file}:1", ["c", "d", "e"], f"{file}:3")


def test_a_backslash_makes_text_of_the_end_of_a_row(tmp_path):
    file = tmp_path / "t.tsv"
    file.write_bytes(b"x\ty\na\\\tb\\\nc\td\\\\\ne\r\\\nf\tg\r\nh\\\n\xff\ti\nj\tk\\")
    rows = list(read_table(file, ["x", "y"], escaped=True))
    assert rows[:2] == [["a\tb\nc", "d\\"], ["e\r\nf", "g"]]
    assert rows[2].where == f"{file}:6" and "not UTF-8 text (byte 0xff" in rows[2].reason
    assert rows[3:] == [["j", "k"]]


def test_a_bad_row_says_its_id_where_it_can(tmp_path):
    file = tmp_path / "t.txt"
    file.write_bytes(b"a-1 x\xff\na-2\na-3\tx\na-4x y\n? x\n")
    assert [row.name for row in read_transcripts(file, r"a-\d+")] == ["a-1", "a-2", "a-3", "", ""]


def test_objects_that_are_no_text_are_bad_rows(tmp_path):
    published = Published("freevoices", tmp_path)
    spoilt = [
        b'{"text": "\\ud800"}',
        b"[" * 100000,
        b"9" * 5000,
        b"[]",
        published.row(0).replace(b"train0.w", b"\\u0000"),
    ]
    spoilt += [
        published.row(0).replace(b"0.5", b"1" + b"0" * 400),
        published.row(0).replace(b'{"en": "u dos tres"}', b"[1]"),
    ]
    published.write(*(published.row(number) for number in range(4)), *spoilt)
    bad = [row.where for row in published.read() if isinstance(row, BadRow)]
    assert bad == [f"{published.file}:{number}" for number in (5, 6, 7, 8, 9, 10, 11)]


def test_lines_end_with_lf_only(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeffa\u2028b\u0085c\rd\r\n\r\ne".encode())
    assert text_lines(file) == ["a\u2028b\u0085c\rd", "", "e"]
    file.write_bytes(b"a\n")
    assert text_lines(file) == ["a"]
    file.write_bytes(b"")
    assert text_lines(file) == []


def test_nothing_in_masr_splits_at_rare_separators():
    splits = []
    for file in sorted(Path(prepare.__file__).parents[1].rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "splitlines":
                splits.append(f"{file.name}:{node.lineno}")
    assert not splits
