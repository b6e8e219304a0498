"""Alignment of known texts: on real speech with the shipped model, and what goes in and comes out on tiny ones."""

import json
import sys
import warnings
from itertools import groupby, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_whisper import build, write_tiny_whisper

import masr
from masr import cli
from masr.config import Config, Vocab
from masr.corpora import freevoices
from masr.data.features import load_audio
from masr.decode.search import Searcher
from masr.models.folder import save_model
from masr.models.recognizer import Recognizer
from masr.recognize import SpeechRecognizer
from masr.recognize import align as aligning
from masr.recognize.align import align, align_file, check_alignable, posteriors
from masr.recognize.script import read_script
from masr.text.tokenizer import Tokenizer, train_tokenizer

CORPUS = Path(__file__).parents[2] / "egs/freevoices/corpus"
RATE = 16000
TEXTS = {"el": ["μια γάτα και μια αγελάδα"] * 9, "es": ["una vaca y un gato"] * 9}


@pytest.fixture(scope="module")
def shipped() -> SpeechRecognizer:
    return masr.load("freevoices", methods=["ctc-greedy"])


@pytest.fixture(scope="module")
def czech() -> list[tuple[np.ndarray, str]]:
    """Twelve recordings (S,) that the shipped model has not trained on, and what is said in them."""
    cuts = [cut for cut in freevoices.read(CORPUS, ["cs"])["test"] if cut.duration > 1.5][:12]
    return [(load_audio(cut), cut.supervisions[0].text) for cut in cuts]


@pytest.fixture(scope="module")
def in_a_row(czech) -> tuple[np.ndarray, list[float]]:
    """All of them with pauses of half a second (S,), and where each of them begins in seconds."""
    random = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    starts = []
    for samples, _ in czech:
        starts.append(sum(map(len, parts)) / RATE)
        parts += [samples, random.normal(0, 1e-4, RATE // 2).astype(np.float32)]
    return np.concatenate(parts), starts


def test_words_of_twelve_recordings_in_a_row_are_where_they_are_in_each_alone(shipped, czech, in_a_row):
    samples, starts = in_a_row
    assert len(samples) > 1.4 * aligning.WINDOW * RATE, "several windows"
    text = " ".join(text for _, text in czech)
    together = align(shipped, samples, text, "cs")
    alone = []
    for (own, said), start in zip(czech, starts, strict=True):
        alone += [(word.text, start + word.start) for word in align(shipped, own, said, "cs")]
    assert [word.text for word in together] == text.split() == [word for word, _ in alone]
    errors = [abs(word.start - start) for word, (_, start) in zip(together, alone, strict=True)]
    assert np.median(errors) < 0.04
    assert all(one.start <= one.end <= following.start for one, following in pairwise(together))
    assert together[-1].end <= len(samples) / RATE


def test_a_wrong_text_has_lower_confidence(shipped, czech, in_a_row):
    texts = [text for _, text in czech]
    right = align(shipped, in_a_row[0], " ".join(texts), "cs")
    wrong = align(shipped, in_a_row[0], " ".join(reversed(texts)), "cs")
    assert all(0 <= word.confidence <= 1 for word in right + wrong)
    assert mean_confidence(right) > 1.5 * mean_confidence(wrong)


def mean_confidence(words) -> float:
    return sum(word.confidence for word in words) / len(words)


def test_every_line_of_a_file_is_a_segment(shipped, czech, in_a_row, tmp_path):
    soundfile.write(tmp_path / "a.wav", in_a_row[0], RATE, subtype="FLOAT")
    lines = [czech[0][1], "", "  ", "* * *", *(f"– {text} " for _, text in czech[1:])]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    transcript = align_file(shipped, tmp_path / "a.wav", tmp_path / "a.txt", "cs")
    texts = [line.strip() for line in lines if any(c.isalpha() for c in line)]
    assert [segment.text for segment in transcript.segments] == texts
    for segment in transcript.segments:
        assert " ".join(word.text for word in segment.words) == segment.text
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    starts = [segment.start for segment in transcript.segments]
    assert np.median(np.abs(np.array(starts) - in_a_row[1])) < 0.5
    assert transcript.words == [word for segment in transcript.segments for word in segment.words]


def tiny(tokenizer: Tokenizer, **model) -> SpeechRecognizer:
    """A recogniser of random weights."""
    encoder = {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "kernel": 3, "subsampling_channels": 4}
    options = {"encoder": encoder | model.pop("encoder", {}), **model}
    torch.manual_seed(5)
    config = Config(name="tiny", model=options, decode={"methods": ["ctc-greedy"]})
    model = Recognizer(config, tokenizer).eval()
    model.set_statistics(torch.full((80,), -8.0), torch.full((80,), 3.0))
    return SpeechRecognizer(model, Searcher(model, config.decode), {})


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_tokenizer(TEXTS, Vocab(kind="bpe", size=40, language_token=True))


@pytest.mark.parametrize("subsampling", [4, 6])
@pytest.mark.parametrize("upsampling", [1, 2])
def test_windows_give_every_frame_once(bpe, in_a_row, subsampling, upsampling):
    """What a short recording's encoder gives, and for a long one as many frames of the same moments."""
    recognizer = tiny(bpe, encoder={"subsampling": subsampling}, ctc={"upsampling": upsampling})
    columns = np.arange(len(bpe))
    for seconds in (0.3, 29.9, 41.7):
        samples = in_a_row[0][: int(seconds * RATE)]
        features = torch.from_numpy(recognizer.segments.log_mel(samples))
        prompt = torch.tensor([[True, False]])
        with torch.no_grad():
            encoded = recognizer.model.encode(features[None], torch.tensor([len(features)]), prompt)
            [expected] = recognizer.model.ctc_log_probs(encoded, prompt)[0].numpy()
        found = posteriors(recognizer, samples, "el", columns)
        assert found.shape == expected.shape
        if seconds < aligning.WINDOW:
            np.testing.assert_allclose(found, expected, atol=1e-4)
        else:
            error = np.abs(found - expected).mean()  # attention does not see all of the recording
            assert error < 0.5 * np.abs(found[1:] - expected[:-1]).mean()
            assert error < 0.5 * np.abs(found[:-1] - expected[1:]).mean()


@pytest.mark.parametrize("frames", [1, 749, 750, 751, 1300, 1301, 90_000])
def test_windows_follow_each_other_with_context_on_both_sides(frames):
    """Of encoder frames of 40 ms."""
    windows = list(aligning._windows(frames, 640))
    assert windows[0].start == 0 and windows[-1].end == frames
    assert all(one.end == following.start for one, following in pairwise(windows))
    assert all(window.last - window.first <= 750 for window in windows)
    for window in windows:
        assert (window.first, window.last) == (max(0, window.start - 50), min(frames, window.end + 50))


def test_a_word_is_as_sure_as_the_mean_of_its_tokens(bpe, czech, monkeypatch):
    posteriors_of = np.full((7, 3), 0.05, np.float32)
    for frame, (column, posterior) in enumerate([(0, 0.9), (1, 0.9), (2, 0.9), (2, 0.6), (0, 0.8), (0, 0.9), (0, 0.9)]):
        posteriors_of[frame, column] = posterior
    monkeypatch.setattr(aligning, "posteriors", lambda *_: np.log(posteriors_of))
    assert bpe.encode("y", "es")[0] == bpe.language_id("es")
    [word] = align(tiny(bpe), czech[0][0], "y", "es")
    assert (word.start, word.end) == pytest.approx((0.08, 0.16))
    assert word.confidence == pytest.approx(0.75)


def script(lines, language, tokenizer):
    """Words with the tokens of each, and the warnings."""
    found = read_script(lines, language, tokenizer)
    pieces: list[str] = [""] * len(found.words)
    for token, owner in zip(found.tokens, found.owners, strict=True):
        if owner is not None:
            pieces[owner] += tokenizer.pieces[token].replace("▁", "")
    return list(zip(found.words, pieces, strict=True)), found.warnings


@pytest.mark.parametrize("options", [{"kind": "bpe", "size": 40, "language_token": True}, {}, {"per_language": True}])
def test_words_stay_as_they_are_written_and_are_said_as_the_model_writes_them(options):
    tokenizer = train_tokenizer(TEXTS, Vocab(**options))
    found, left_out = script(["– ¡Una VACA, y…", "un-gato — !", "", "« y »"], "es", tokenizer)
    assert found == [
        ("– ¡Una", "una"), ("VACA,", "vaca"), ("y…", "y"), ("un-gato — !", "ungato"), ("« y »", "y")
    ]  # fmt: skip
    assert left_out == []


def test_no_break_spaces_are_inside_a_word(bpe):
    found, _ = script(["una\u00a0vaca !\u3000gato"], "es", bpe)
    assert found == [("una\u00a0vaca !", "unavaca"), ("gato", "gato")]


def test_characters_without_tokens_are_left_out_and_named(bpe):
    found, left_out = script(["una wacka", "y wwvaca"], "es", bpe)
    assert found == [("una", "una"), ("wacka", "aca"), ("y", "y"), ("wwvaca", "vaca")]
    assert left_out == ["text: left out, as the model has no tokens for them: 'w' (3), 'k' (1)"]


def test_words_of_which_nothing_would_be_left_are_named_with_their_line(bpe):
    with pytest.raises(ValueError, match=r"^text, line 2: the model has no tokens for '1984,'; write them as"):
        read_script(["una vaca", "y 1984, un gato"], "es", bpe)
    with pytest.raises(ValueError, match=r"'1', '2', '3', '4', '5' and 2 more words"):
        read_script(["1 2 3 4 5 6 7"], "es", bpe)


@pytest.mark.parametrize(("kind", "size"), [("char", 500), ("bpe", 12), ("unigram", 14)])
def test_words_of_languages_without_spaces_are_the_models_tokens(kind, size):
    sentences = ["今日は晴れです", "今日は雨です", "明日は 今日は"] * 9
    tokenizer = train_tokenizer({"ja": sentences}, Vocab(kind=kind, size=size))
    found, _ = script(["「今日は、晴れです。」", "明日は Ｘ雨"], "ja", tokenizer)
    assert "".join(written for written, _ in found) == "「今日は、晴れです。」明日はＸ雨".replace("はＸ", "は Ｘ")
    assert "".join(spoken for _, spoken in found) == "今日は晴れです明日は雨"
    assert all(spoken and spoken in written for written, spoken in found)
    assert [len(spoken) for _, spoken in found] == [1] * 11 or kind != "char"
    assert kind == "char" or any(len(spoken) > 1 for _, spoken in found)


def test_a_character_that_is_another_one_among_its_neighbours_moves_no_word():
    """Half-width katakana: voicing is a character of its own, which means nothing alone."""
    tokenizer = train_tokenizer({"ja": ["ガスカスは", "は ガ"] * 9}, Vocab())
    found, _ = script(["ｶﾞｽはｶﾞ"], "ja", tokenizer)
    assert found == [("ｶﾞ", "カ"), ("ｽ", "ス"), ("は", "は"), ("ｶﾞ", "カ")]


def test_letters_of_several_bytes_belong_to_their_word():
    texts = {"es": ["una vaca y un gato"] * 9}
    tokenizer = train_tokenizer(texts, Vocab(kind="bpe", size=300, byte_fallback=True))
    found = read_script(["una ñq vaca"], "es", tokenizer)
    assert found.words == ["una", "ñq", "vaca"] and not found.warnings
    owners = [owner for token, owner in zip(found.tokens, found.owners, strict=True) if token in tokenizer.bytes]
    assert owners == [1, 1, 1], "two bytes of ñ and one of q"


def test_published_text_keeps_its_signs():
    tokenizer = train_tokenizer({"es": ["¿Una vaca, y un gato?"] * 9}, Vocab(text="published"))
    found, left_out = script(["¿Una vaca, y - un gato?"], "es", tokenizer)
    assert found == [("¿Una", "¿Una"), ("vaca,", "vaca,"), ("y -", "y"), ("un", "un"), ("gato?", "gato?")]
    assert left_out == ["text: left out, as the model has no tokens for them: '-' (1)"]


@pytest.mark.parametrize("model", [{}, {"ctc": {"per_language": True}}])
@pytest.mark.parametrize("start", range(0, 12000, 3000))
def test_the_alignment_is_the_best_of_all(bpe, czech, model, start):
    """Of all ways in which blank, the language's token and the word can be on eight frames."""
    recognizer = tiny(bpe, **model)
    samples = czech[0][0][start : start + int(0.315 * RATE)]
    tokens = bpe.encode("y y", "es")
    columns = np.array([0, *sorted(set(tokens))])
    scores = posteriors(recognizer, samples, "es", columns).astype(np.float64)
    assert scores.shape == (8, 3)
    best, path = -np.inf, ()
    for candidate in product(range(3), repeat=8):
        said = [int(columns[column]) for column, _ in groupby(candidate) if column]
        score = sum(scores[frame, column] for frame, column in enumerate(candidate))
        if said == tokens and score > best:
            best, path = score, candidate
    runs = [(column, [frame for frame, _ in run]) for column, run in groupby(enumerate(path), key=lambda pair: pair[1])]
    word_column = columns.tolist().index(tokens[-1])
    expected = [frames for column, frames in runs if column == word_column]
    found = align(recognizer, samples, "y… Y!", "es")
    assert [word.text for word in found] == ["y…", "Y!"]
    for word, frames in zip(found, expected, strict=True):
        assert (word.start, word.end) == pytest.approx((0.04 * frames[0], min(0.04 * frames[-1] + 0.04, 0.315)))
        assert word.confidence == pytest.approx(np.exp(scores[frames, word_column]).mean(), abs=1e-4)


def test_a_token_that_a_languages_head_lacks_does_not_forbid_the_others(bpe, czech):
    words = align(tiny(bpe, ctc={"per_language": True}), czech[0][0], "vaca μια gato", "es")
    assert [word.text for word in words] == ["vaca", "μια", "gato"]
    assert words[1].confidence == 0.0 < words[0].confidence


def test_no_words_have_no_times(bpe, czech):
    assert align(tiny(bpe), czech[0][0], " \n… ", "es") == []


def test_letters_left_out_are_a_warning(bpe, czech):
    with pytest.warns(UserWarning, match="no tokens for them: 'w'"):
        align(tiny(bpe), czech[0][0], "wuna", "es")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        align(tiny(bpe), czech[0][0], "una", "es")


def test_audio_that_is_too_short_is_named(bpe, czech):
    with pytest.raises(ValueError, match=r"^audio: 0.20 s of audio are too short for 4 words of text, which need 0."):
        align(tiny(bpe), czech[0][0][: RATE // 5], "una vaca una vaca", "es")


@pytest.mark.parametrize(("language", "message"), [(None, "name the one"), ("cs", "unknown: cs; this model knows el")])
def test_the_language_must_be_one_of_the_models(bpe, czech, language, message):
    with pytest.raises(ValueError, match=f"^language: {message}"):
        align(tiny(bpe), czech[0][0], "una", language)


def test_a_model_of_one_language_needs_no_language(czech):
    tokenizer = train_tokenizer({"es": TEXTS["es"]}, Vocab())
    assert [word.text for word in align(tiny(tokenizer), czech[0][0], "una vaca")] == ["una", "vaca"]


def test_models_without_ctc_are_refused(bpe, tmp_path):
    with pytest.raises(ValueError, match=r"cannot align: it has no CTC head that has learnt .* as no Whisper has"):
        check_alignable(build(write_tiny_whisper(tmp_path)))
    decoder = {"weight": 1.0, "layers": 1, "width": 16, "heads": 2, "feedforward": 16}
    with pytest.raises(ValueError, match="cannot align"):
        check_alignable(tiny(bpe, ctc={"weight": 0.0}, attention_decoder=decoder).model)


@pytest.fixture
def files(bpe, czech, tmp_path) -> list[str]:
    """A model's folder, a recording and its text."""
    save_model(tmp_path / "model", tiny(bpe).model)
    soundfile.write(tmp_path / "a.wav", czech[0][0], RATE)
    (tmp_path / "a.txt").write_text("Una vaca,\ny un \x1b[2Jgato.", encoding="utf-8")
    return [str(tmp_path / name) for name in ("model", "a.wav", "a.txt")]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["masr", "align", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_the_command_prints_or_writes_every_format(files, monkeypatch, capsys):
    assert run_cli(monkeypatch, *files, "--language", "es") == 0
    found = json.loads(capsys.readouterr().out)
    assert [word["text"] for word in found["words"]] == ["Una", "vaca,", "y", "un", "\x1b[2Jgato."]
    assert len(found["segments"]) == 2
    output = Path(files[1]).with_suffix(".ctm")
    assert run_cli(monkeypatch, *files, "--language", "es", "--format", "ctm", "--output", str(output)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {output}"
    assert [line.split()[4] for line in output.read_text().splitlines()] == ["Una", "vaca,", "y", "un", "[2Jgato."]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("una", ["--format", "doc"], "masr: format: unknown: doc; expected one of txt, json"),
        (" \n", [], "masr: {2}: there are no words to align in it"),
        ("1984", [], "masr: {2}, line 1: the model has no tokens for '1984'"),
        ("una vaca " * 999, [], "masr: {1}: 5.83 s of audio are too short for 1998 words of text"),
    ],
)
def test_the_command_explains_what_it_cannot_do(files, monkeypatch, text, options, message):
    Path(files[2]).write_text(text)
    found = run_cli(monkeypatch, *files, "--language", "es", *options)
    assert str(found).startswith(message.format(*files))
