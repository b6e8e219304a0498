"""Stage 4: one line an utterance and method, when it is redone, and what it refuses."""

import json

import pytest
from kaldialign import edit_distance
from lhotse import CutSet

from masr.stages import decode, features, prepare, score
from masr.stages.features import feature_folder
from masr.stages.output import seal_of
from masr.tensor_files import load_tensors, save_tensors


def lines(small, method: str = "ctc-greedy", split: str = "test") -> list[dict]:
    path = small.folder / f"exp/small/decode/{method}/{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_utterance_has_a_line_from_every_method(trained, capsys):
    decode.run(trained.config())
    printed = capsys.readouterr().out
    (expected,) = CutSet.from_file(trained.folder / "data/manifests/test.jsonl.gz")
    for method, hypotheses in (("ctc-greedy", 1), ("joint-beam", 2)):
        (line,) = lines(trained, method)
        assert (line["id"], line["language"], line["reference"]) == (expected.id, "es", expected.supervisions[0].text)
        assert line["hypothesis"] == line["nbest"][0]["text"]
        assert line["score"] == line["nbest"][0]["score"]
        assert len(line["nbest"]) == hypotheses
        assert [h["score"] for h in line["nbest"]] == sorted((h["score"] for h in line["nbest"]), reverse=True)
        assert line["duration"] == pytest.approx(expected.duration, abs=1e-4)
        assert line["seconds"] > 0
        assert f"decode: test: {method}: 1 utterances at real-time factor " in printed


def test_words_have_times_within_the_recording(trained):
    decode.run(trained.config())
    for line in lines(trained):
        assert [word for word, _, _ in line["words"]] == line["hypothesis"].split()
        for _, start, end in line["words"]:
            assert 0 <= start < end <= line["duration"] + 0.08


def test_lines_are_sorted_by_id_whatever_the_batches(trained):
    config = trained.config("corpus.test=[train,dev]", "decode.batch_seconds=1")
    prepare.run(config)
    features.run(config)
    decode.run(config)
    one_by_one = lines(trained, split="train")
    assert [line["id"] for line in one_by_one] == sorted(row["id"] for row in trained.rows if row["split"] == "train")
    decode.run(trained.config("corpus.test=[train,dev]", "decode.batch_seconds=100"))
    for line, together in zip(one_by_one, lines(trained, split="train"), strict=True):
        assert line["hypothesis"] == together["hypothesis"]
        assert line["score"] == pytest.approx(together["score"], abs=1e-3)


def test_features_computed_on_the_fly_give_the_same(trained):
    decode.run(trained.config())
    stored = lines(trained)
    config = trained.config("features.on_the_fly=true")
    features.run(config)
    decode.run(config)
    assert lines(trained)[0]["score"] == pytest.approx(stored[0]["score"], rel=0.01)


def test_the_second_run_does_nothing(trained, snapshot, capsys):
    decode.run(trained.config())
    before = snapshot(trained.folder / "exp")
    capsys.readouterr()
    decode.run(trained.config("train.updates=9"))
    assert capsys.readouterr().out == "decode: complete in exp/small/decode (--force redoes it)\n"
    assert snapshot(trained.folder / "exp") == before


@pytest.mark.parametrize("reason", ["force", "options", "weights", "half-written", "damaged"])
def test_it_is_redone_when_something_changed(trained, half_written, reason):
    config = trained.config()
    decode.run(config)
    stray = trained.folder / "exp/small/decode/ctc-greedy/stray"
    stray.touch()
    match reason:
        case "options":
            config = trained.config("decode.beam=3")
        case "weights":
            weights = trained.folder / "exp/small/averaged.safetensors"
            changed = {name: tensor + 0.1 for name, tensor in load_tensors(weights)[0].items()}
            save_tensors(weights, changed)
        case "half-written":
            half_written(trained.folder / "exp/small/decode/ctc-greedy")
        case "damaged":
            (trained.folder / "exp/small/decode/ctc-greedy/test.jsonl").write_text("")
    decode.run(config, force=reason == "force")
    assert not stray.exists()
    assert len(lines(trained)) == len(lines(trained, "joint-beam")) == 1


@pytest.mark.parametrize("moment", [("masr.stages.decode:_write_lines", 2), ("masr.stages.output:StageOutput.seal", 1)])
def test_killed_and_run_again_it_is_as_if_never_killed(trained, kill_at, moment):
    kill_at(*moment, lambda: decode.run(trained.config()))
    assert len(lines(trained)) == 1, "the first method was written"
    with pytest.raises(FileNotFoundError, match="run `masr decode`"):
        seal_of(trained.folder / "exp/small/decode/ctc-greedy", "decode")
    decode.run(trained.config())
    assert len(lines(trained)) == len(lines(trained, "joint-beam")) == 1


def test_a_transcript_outside_the_vocabulary_is_decoded_and_kept_as_reference(trained):
    trained.publish(trained.bad_row(id="foreign", split="test", text="漢字 Ж"))
    prepare.run(trained.config())
    features.run(trained.config())
    decode.run(trained.config())
    assert {line["id"]: line["reference"] for line in lines(trained)}["foreign"] == "漢字 ж"


def test_damaged_features_are_listed_and_skipped(trained):
    config = trained.config()
    trained.publish(trained.bad_row(split="test"))
    prepare.run(config)
    features.run(config)
    cuts = list(CutSet.from_file(feature_folder(config) / "test/cuts.jsonl.gz"))
    cuts[-1].features.storage_path = "data/fbank/test/99999"
    CutSet.from_cuts(cuts).to_file(feature_folder(config) / "test/cuts.jsonl.gz")
    decode.run(config)
    listed = (trained.folder / "exp/small/decode/test.rejected.tsv").read_text()
    assert listed.startswith("bad\tstored features cannot be read: ")
    assert len(lines(trained)) == 1


def test_a_split_of_which_nothing_can_be_read_stops_the_stage(trained):
    (trained.folder / "data/fbank/test/00000.lca").write_bytes(b"")
    with pytest.raises(ValueError, match=r"decode: no recording of test can be used; .*test\.rejected\.tsv"):
        decode.run(trained.config())
    assert not list((trained.folder / "exp/small/decode").rglob("complete.json"))


def test_before_stage_3_it_names_the_way_out(ready):
    with pytest.raises(FileNotFoundError, match="exp/small holds no trained model .* train it with `masr train`"):
        decode.run(ready.config())


def test_a_split_that_was_not_prepared_names_the_way_out(trained):
    with pytest.raises(FileNotFoundError, match=r"data/manifests has no split other .*: run `masr prepare`"):
        decode.run(trained.config("corpus.test=[other]"))


def test_a_method_that_the_model_cannot_do_is_refused(ready):
    from masr.models.folder import save_model
    from masr.models.recognizer import Recognizer
    from masr.stages.vocab import load_tokenizer

    config = ready.config("model.attention_decoder.weight=0")
    model = Recognizer(config, load_tokenizer(config))
    save_model(ready.folder / "exp/small", model)
    with pytest.raises(ValueError, match=r"decode\.methods: joint-beam needs an attention decoder.*use ctc-greedy"):
        decode.run(config)


RESCORING = "decode.methods=[ctc-greedy,nbest-lm-rescoring]"


def test_dev_chooses_the_scales_and_they_are_kept(trained, capsys):
    decode.run(trained.config(RESCORING))
    kept = json.loads((trained.folder / "exp/small/decode/nbest-lm-rescoring/scales.json").read_text())
    assert set(kept["scales"]) == {"token-lm", "word-lm", "length"}
    printed = capsys.readouterr().out
    assert "decode: nbest-lm-rescoring: token-lm " in printed and "best of 196 on dev: macro CER " in printed
    [line] = lines(trained, "nbest-lm-rescoring")
    assert set(line["nbest"][0]["parts"]) == {"ctc", "token-lm", "word-lm", "length"}
    assert not (trained.folder / "exp/small/decode/ctc-greedy/scales.json").exists()


def test_another_method_leaves_those_that_are_complete(trained, snapshot, capsys):
    decode.run(trained.config("decode.methods=[ctc-greedy]"))
    before = snapshot(trained.folder / "exp/small/decode/ctc-greedy")
    capsys.readouterr()
    decode.run(trained.config("decode.methods=[ctc-greedy,ctc-prefix-beam]"))
    printed = capsys.readouterr().out
    assert "decode: test: ctc-prefix-beam: 1 utterances" in printed and "ctc-greedy" not in printed
    assert snapshot(trained.folder / "exp/small/decode/ctc-greedy") == before


def test_the_oracle_is_the_best_of_its_candidates(trained):
    decode.run(trained.config("decode.methods=[nbest-oracle]", "decode.rescoring.candidates=20"))
    [line] = lines(trained, "nbest-oracle")
    distance = {h["text"]: edit_distance(list(line["reference"]), list(h["text"]))["total"] for h in line["nbest"]}
    assert len(distance) > 1
    assert distance[line["hypothesis"]] == min(distance.values())


def test_a_bias_file_that_changes_is_decoded_again(trained, capsys):
    (trained.folder / "words.txt").write_text("pato\n")
    config = trained.config("decode.methods=[ctc-prefix-beam]", "decode.bias_file=words.txt")
    decode.run(config)
    decode.run(config)
    assert "decode: complete" in capsys.readouterr().out
    (trained.folder / "words.txt").write_text("vaca\n")
    decode.run(config)
    assert "decode: complete" not in capsys.readouterr().out


@pytest.mark.parametrize("method", ["lattice-h", "lattice-hg", "lattice-lm-rescoring", "neural-lm-rescoring"])
def test_methods_with_language_models_choose_their_scales_and_write_lines(trained, method):
    fast = ["language_model.neural_width=8", "language_model.neural_epochs=1", "decode.lattice.lattice_beam=1"]
    decode.run(trained.config(f"decode.methods=[{method}]", "decode.rescoring.candidates=3", *fast))
    (line,) = lines(trained, method)
    assert line["hypothesis"] == line["nbest"][0]["text"]
    assert line["predicted_language"] == "es", "the only one there is"
    scales = trained.folder / f"exp/small/decode/{method}/scales.json"
    assert scales.exists() == (method != "lattice-h")


def test_an_utterance_without_any_path_is_still_json():
    assert decode._or_null(float("-inf")) is None
    assert decode._or_null(-1.5) == -1.5


def test_prompts_have_results_of_their_own(trained, capsys):
    config = trained.config("decode.prompts=[all,oracle]", "decode.methods=[ctc-greedy]")
    decode.run(config)
    assert "decode: test: ctc-greedy@oracle: 1 utterances" in capsys.readouterr().out
    (everything,), (oracle,) = lines(trained), lines(trained, "ctc-greedy@oracle")
    assert everything["id"] == oracle["id"]
    decode.run(trained.config("decode.methods=[ctc-greedy]"))
    assert capsys.readouterr().out.startswith("decode: complete")
    score.run(config)
    assert (trained.folder / "exp/small/score/ctc-greedy@oracle/test/metrics.json").exists()
