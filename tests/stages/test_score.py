"""Stage 5: reports of every method and split, when they are redone, and what it refuses."""

import json

import pytest

from masr.stages import decode, score


@pytest.fixture
def decoded(trained):
    decode.run(trained.config())
    return trained


FILES = ["alignments.txt", "metrics.json", "report.html", "report.md"]


def test_every_method_and_split_has_its_report(decoded, capsys):
    capsys.readouterr()
    score.run(decoded.config())
    printed = capsys.readouterr().out
    for method in ("ctc-greedy", "joint-beam"):
        folder = decoded.folder / f"exp/small/score/{method}/test"
        assert sorted(path.name for path in folder.iterdir()) == FILES
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["utterances"] == 1
        assert metrics["languages"]["es"]["cer"]["rate"] >= 0
        assert f"score: test: {method}: macro CER " in printed
    assert "Spanish (es)" in printed
    assert "score: reports in exp/small/score/<method>/<split>/report.html" in printed


def test_a_perfect_hypothesis_scores_zero(decoded):
    path = decoded.folder / "exp/small/decode/ctc-greedy/test.jsonl"
    line = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(line | {"hypothesis": line["reference"]}) + "\n", encoding="utf-8")
    score.run(decoded.config())
    metrics = json.loads((decoded.folder / "exp/small/score/ctc-greedy/test/metrics.json").read_text())
    assert metrics["macro"]["cer"]["rate"] == metrics["macro"]["wer"]["rate"] == 0


def test_the_second_run_writes_nothing_and_shows_the_table_again(decoded, snapshot, capsys):
    score.run(decoded.config())
    before = snapshot(decoded.folder / "exp")
    capsys.readouterr()
    score.run(decoded.config())
    printed = capsys.readouterr().out
    assert printed.startswith("score: complete in exp/small/score (--force redoes it)\n")
    assert "Spanish (es)" in printed
    assert snapshot(decoded.folder / "exp") == before


@pytest.mark.parametrize("reason", ["force", "decoded anew", "half-written", "damaged"])
def test_it_is_redone_when_something_changed(decoded, reason, half_written):
    score.run(decoded.config())
    stray = decoded.folder / "exp/small/score/stray"
    stray.touch()
    match reason:
        case "decoded anew":
            decode.run(decoded.config("decode.length_bonus=0.1"))
        case "half-written":
            half_written(decoded.folder / "exp/small/score")
        case "damaged":
            (decoded.folder / "exp/small/score/ctc-greedy/test/metrics.json").write_text("")
    score.run(decoded.config(), force=reason == "force")
    assert not stray.exists()
    assert json.loads((decoded.folder / "exp/small/score/ctc-greedy/test/metrics.json").read_text())["utterances"] == 1


def test_the_report_says_how_the_model_was_made(decoded):
    environment = {"command": "masr train small.yaml", "machine": "x86_64", "packages": {"torch": "2.13.0"}}
    (decoded.folder / "exp/small/environment.json").write_text(json.dumps(environment))
    training = {"parameters": 4_200_000, "train_seconds": 90, "audio_seconds": 7200, "best_cer": 0.125}
    (decoded.folder / "exp/small/training.json").write_text(json.dumps(training))
    score.run(decoded.config())
    report = (decoded.folder / "exp/small/score/ctc-greedy/test/report.md").read_text(encoding="utf-8")
    for fact in ("masr train small.yaml", "torch 2.13.0", "4.20 M", "1:30", "2.0 h", "12.5"):
        assert fact in report


def test_before_stage_4_it_names_the_way_out(trained):
    with pytest.raises(FileNotFoundError, match="exp/small/decode/ctc-greedy is not complete: run `masr decode`"):
        score.run(trained.config())


def test_a_method_that_was_not_decoded_names_the_way_out(decoded):
    with pytest.raises(FileNotFoundError, match="ctc-prefix-beam is not complete: run `masr decode`"):
        score.run(decoded.config("decode.methods=[ctc-prefix-beam]"))


def test_a_malformed_line_is_named(decoded):
    path = decoded.folder / "exp/small/decode/ctc-greedy/test.jsonl"
    path.write_text('{"id": "a"\n')
    with pytest.raises(ValueError, match=r"ctc-greedy/test\.jsonl, line 1: not JSON"):
        score.run(decoded.config())
