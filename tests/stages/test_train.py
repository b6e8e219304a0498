"""Stage 3: what it trains on, when it runs, and what it refuses. How it trains is tested in tests/train."""

import json
from pathlib import Path

import miniatures
import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import masr
from masr.config_files import ConfigError, load_config
from masr.data.rejected import TooManyRejected
from masr.models.folder import load_model
from masr.stages import decode, features, prepare, train, vocab


@pytest.fixture
def with_bad(small):
    """`small` after stages 0 to 2, with ten minutes and a recording too short for its text in the training split."""
    speech = np.tile(miniatures.samples_of(small.rows[0]), 1000)
    small.publish(
        miniatures.add_recording(small.corpus, small.bad_row(id="long", audio="long.wav"), speech[: 600 * 16000]),
        miniatures.add_recording(
            small.corpus, small.bad_row(id="hasty", audio="hasty.wav", text="ababab" * 9), speech[:8000]
        ),
    )
    for stage in (prepare, features, vocab):
        stage.run(small.config())
    return small


def test_a_model_folder_is_written_with_the_resolved_config(ready):
    train.run(ready.config())
    folder = ready.folder / "exp/small"
    assert load_config(folder / "config.yaml") == ready.config()
    assert load_file(folder / "averaged.safetensors")
    for name in ("environment.json", "training.json", "log.jsonl", "complete.json"):
        assert (folder / name).is_file()


def test_the_second_run_does_nothing(ready, snapshot, capsys):
    train.run(ready.config())
    before = snapshot(ready.folder / "exp")
    capsys.readouterr()
    train.run(ready.config("decode.beam=7", "train.threads=0"))
    assert "train: complete in exp/small (--force redoes it)" in capsys.readouterr().out
    assert snapshot(ready.folder / "exp") == before


def test_what_is_too_long_and_what_cannot_be_aligned_are_listed_and_counted_apart(with_bad, capsys):
    train.run(with_bad.config())
    lines = (with_bad.folder / "exp/small/rejected.tsv").read_text().splitlines()
    reasons = dict(line.split("\t") for line in lines)
    assert reasons == {
        "long": "limit: 600.00 s is outside data.min_seconds=0.1 to data.max_seconds=30",
        "hasty": "13 CTC frames for 54 tokens and blanks of CTC",
    }
    printed = capsys.readouterr().out
    assert "train: 1 of 5 recordings left out by a limit (first: long: 600.00 s" in printed
    assert "train: 1 of 4 recordings skipped (first: hasty: 13 CTC frames" in printed


def test_too_much_that_cannot_be_trained_on_stops_the_stage(with_bad):
    with pytest.raises(TooManyRejected, match=r"train: 1 of 4 recordings skipped .* data\.max_bad_fraction=0\.2"):
        train.run(with_bad.config("data.max_bad_fraction=0.2"))
    assert not (with_bad.folder / "exp/small/averaged.safetensors").exists()


def test_a_limit_chosen_on_purpose_leaves_out_any_number(ready, capsys):
    durations = sorted(cut.duration for cut in features.load_cuts(ready.config(), "train"))
    assert durations[0] < durations[1]
    train.run(ready.config(f"data.max_seconds={durations[0] + 1e-3}", "data.max_bad_fraction=0"))
    printed = capsys.readouterr().out
    assert "train: 2 of 3 recordings left out by a limit (first: " in printed and "skipped" not in printed


def test_the_longest_text_of_the_decoder_is_a_limit(ready, monkeypatch, capsys):
    from masr.nn.attention_decoder import AttentionDecoder

    monkeypatch.setattr(AttentionDecoder, "longest", 1, raising=False)
    with pytest.raises(ValueError, match=r"train: no recording .* can be used; reasons in exp/small/rejected\.tsv"):
        train.run(ready.config("data.max_bad_fraction=0"))
    assert "train: 3 of 3 recordings left out by a limit" in capsys.readouterr().out
    assert "limit: " in (ready.folder / "exp/small/rejected.tsv").read_text()


def test_nothing_to_train_on_is_explained(ready):
    with pytest.raises(ValueError, match=r"train: no recording .* can be used; reasons in exp/small/rejected\.tsv"):
        train.run(ready.config("data.min_seconds=20.0"))


def test_another_config_in_the_same_folder_is_refused_with_what_changed(ready):
    train.run(ready.config())
    with pytest.raises(ConfigError, match=r"exp/small was trained .* changed: seed \(1 -> 2\)\. Choose another name="):
        train.run(ready.config("seed=2"))
    train.run(ready.config("seed=2"), force=True)
    assert load_config(ready.folder / "exp/small/config.yaml").seed == 2


@pytest.mark.parametrize(("stages", "verb"), [([], "prepare"), ([prepare, features], "vocab")])
def test_before_its_predecessors_it_names_the_way_out(small, stages, verb):
    for stage in stages:
        stage.run(small.config())
    with pytest.raises(FileNotFoundError, match=f"is not complete: run `masr {verb}`"):
        train.run(small.config())


def test_bfloat16_trains_on_a_cpu_too(ready):
    losses = {}
    for precision in ("bf16", "fp32"):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision, and goes on with fp32
        train.run(ready.config(f"name=in_{precision}", f"train.precision={precision}", "train.log_every=1"))
        lines = (ready.folder / f"exp/in_{precision}/log.jsonl").read_text().splitlines()
        losses[precision] = [row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"]
    assert losses["fp32"] == pytest.approx(losses["bf16"], rel=0.02) and losses["fp32"] != losses["bf16"]


def test_killed_and_run_again_it_is_finished(ready, kill_at):
    kill_at("masr.stages.output:StageOutput.seal", 1, lambda: train.run(ready.config()))
    train.run(ready.config())
    assert (ready.folder / "exp/small/complete.json").is_file()
    decode.run(ready.config())


def test_data_made_with_other_options_is_refused(ready):
    for override, change in {
        "corpus.languages=[es]": r"data/manifests was made with other options; changed: corpus\.languages \(\[\] ->",
        "features.mel_bins=40": r"fbank/train was made with other options; changed: features\.mel_bins \(.* -> 40\)",
    }.items():
        with pytest.raises(ValueError, match=change):
            train.run(ready.config(override))
    train.run(ready.config("features.jobs=1", "corpus.test=[dev]"))  # these decide nothing of a training run


def test_other_data_in_the_same_folder_is_refused(ready):
    train.run(ready.config())
    ready.publish(ready.bad_row(text="zorro"))
    for stage in (prepare, features, vocab):
        stage.run(ready.config())
    with pytest.raises(ConfigError, match="changed: the training split, the vocabulary"):
        train.run(ready.config())


def test_what_cannot_be_read_any_more_stops_training(ready):
    (ready.folder / "data/fbank/train/00000.lca").write_bytes(b"")
    with pytest.raises(TooManyRejected, match=r"train: 3 of 3 recordings skipped .first: .*: stored features cannot"):
        train.run(ready.config("data.max_bad_fraction=0.3"))
    assert "stored features cannot be read" in (ready.folder / "exp/small/unreadable.tsv").read_text()


def test_dev_that_cannot_be_read_stops_training(ready):
    (ready.folder / "data/fbank/dev/00000.lca").write_bytes(b"")
    with pytest.raises(ValueError, match="no dev recording can be used .first reason: stored features"):
        train.run(ready.config())


@pytest.mark.parametrize(
    "options",
    [
        ["model.encoder.state_space=mamba1"],
        ["model.encoder.state_space=mamba2", "model.encoder.head_size=8", "model.encoder.directions=outer"],
        ["model.encoder.directions=forward", "model.encoder.look_ahead=2", "model.normalization=corpus"],
    ],
)
def test_mamba_encoders_train_decode_and_recognise(ready, options):
    config = ready.config("model.encoder.type=mamba", "decode.methods=[ctc-greedy]", *options)
    train.run(config)
    decode.run(config)
    assert (ready.folder / "exp/small/decode/ctc-greedy/test.jsonl").read_text().count("hypothesis") == 1
    recognizer = masr.load(ready.folder / "exp/small", segments={"voice_activity": False})
    assert recognizer.transcribe(miniatures.samples_of(ready.rows[0])).log_probability < 0
    assert (recognizer.streaming_problem() is None) == ("model.encoder.directions=forward" in options)


def test_a_run_can_start_from_a_model_and_keep_parts_of_it(ready, capsys):
    """The decoder of the second run learns on the encoder of the first one; its tokens go down a tree."""
    train.run(ready.config("name=first", "model.attention_decoder.weight=0"))
    second = ready.config(
        "name=second", "model.ctc.weight=0", "train.init_from=exp/first", "train.frozen=[encoder,ctc]",
        "vocab.output=huffman",
    )  # fmt: skip
    vocab.run(second)
    capsys.readouterr()
    train.run(second)
    printed = capsys.readouterr().out
    assert "train: starts from exp/first; at random: attention_decoder.blocks, attention_decoder.embedding" in printed
    weights = [load_file(ready.folder / f"exp/{name}/averaged.safetensors") for name in ("first", "second")]
    kept = [name for name in weights[1] if name.startswith(("encoder.", "ctc."))]
    assert kept and all(weights[0][name].equal(weights[1][name]) for name in kept)
    assert "attention_decoder.output.output.weight" in weights[1].keys() - weights[0].keys()
    assert "exp/first has another vocabulary" not in printed


def test_where_a_run_cannot_start(ready):
    train.run(ready.config("name=first"))
    vocab.run(ready.config("vocab.language_token=true"))
    with pytest.raises(ValueError, match=r"train\.init_from: exp/first has another vocabulary"):
        train.run(ready.config("name=second", "train.init_from=exp/first", "vocab.language_token=true"))
    with pytest.raises(FileNotFoundError, match="exp/none"):
        train.run(ready.config("name=third", "train.init_from=exp/none"))
    with pytest.raises(ConfigError, match=r"train\.frozen: this model has no language_classifier"):
        train.run(ready.config("name=fourth", "train.frozen=[language_classifier]"))
    with pytest.raises(ConfigError, match=r"train\.frozen: encoder, ctc, attention_decoder: nothing is left to learn"):
        train.run(ready.config("name=fifth", "train.frozen=[encoder,ctc,attention_decoder]"))


def test_vectors_of_another_tree_are_not_taken_over(ready, capsys):
    for output in ("huffman", "balanced"):
        vocab.run(ready.config(f"vocab.output={output}"))
    train.run(ready.config("name=first", "vocab.output=huffman"))
    train.run(ready.config("name=second", "vocab.output=balanced", "train.init_from=exp/first"))
    train.run(ready.config("name=third", "vocab.output=huffman", "train.init_from=exp/first"))
    printed = capsys.readouterr().out
    assert printed.count("starts from exp/first; at random: attention_decoder.output\n") == 1
    assert printed.count("starts from exp/first; at random: nothing\n") == 1


ADAPTERS = "model.encoder.language_adapters={layers: [1], bottleneck: 2}"


def test_adapters_can_learn_in_a_frozen_encoder_or_stay_with_it(ready):
    train.run(ready.config("name=plain"))
    adapted = ready.config("train.init_from=exp/plain", "train.frozen=[encoder,ctc,attention_decoder]", ADAPTERS)
    train.run(adapted)
    before, after = (load_model(Path(f"exp/{name}")).state_dict() for name in ("plain", "small"))
    changed = {name for name, weight in after.items() if name not in before or not torch.equal(weight, before[name])}
    assert changed and all("language_adapters" in name for name in changed)
    everything = "train.frozen=[encoder,language_adapters,ctc,attention_decoder]"
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        train.run(ready.config("name=x", "train.init_from=exp/plain", everything, ADAPTERS))
    with pytest.raises(ConfigError, match="this model has no language_adapters"):
        train.run(ready.config("name=y", "train.frozen=[language_adapters]"))


def test_a_part_of_the_languages_is_what_export_makes(ready):
    with pytest.raises(ConfigError, match="training has all of them; use masr export"):
        train.run(ready.config("model.encoder.language_adapters={layers: [1], languages: [es]}"))


def test_an_impossible_prompt_is_found_before_anything_is_trained_or_thrown_away(ready):
    with pytest.raises(ValueError, match="prompt oracle\\+4: there are not 4 wrong languages"):
        train.run(ready.config("data.dev_prompt=oracle+4"))
    train.run(ready.config("name=other"))
    decode.run(ready.config("name=other"))
    with pytest.raises(ValueError, match="there are not 4 wrong languages"):
        decode.run(ready.config("name=other", "decode.prompts=[all,oracle+4]", "decode.beam=3"))
    assert Path("exp/other/decode/joint-beam/complete.json").exists()


AUGMENTED = [
    "features.on_the_fly=true",
    "train.updates=6",
    "train.schedule=constant",
    "train.validate_every=3",
    "data.batch_seconds=3",
    "model.normalization=speech",
    *(
        f"data.augment.{part}.probability=0.7"
        for part in ("concatenate", "silence", "reverberation", "noise", "gain", "clipping", "channel")
    ),
]


def losses_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("update", "loss", "ctc")} for line in lines if line["kind"] == "train"]


def test_a_run_with_every_augmentation_is_repeatable_and_goes_on(ready, capsys):
    """On any number of workers, and straight or in two goes."""
    options = [*AUGMENTED, "train.log_every=1"]
    features.run(ready.config(*options))
    train.run(ready.config(*options))
    assert not (ready.folder / "exp/small/unreadable.tsv").exists()
    losses = losses_of(ready.folder / "exp/small")
    assert len(losses) == 6 and all(np.isfinite(line["loss"]) for line in losses)
    train.run(ready.config(*options, "name=again", "train.updates=3", "data.workers=2"))
    train.run(ready.config(*options, "name=again", "data.workers=1"))
    assert losses_of(ready.folder / "exp/again") == losses
    with pytest.raises(ConfigError, match=r"changed: data\.augment\.noise\.probability"):
        train.run(ready.config(*options, "name=again", "data.augment.noise.probability=0.1", "train.updates=8"))
    train.run(ready.config("name=plain", *options[:6], "train.log_every=1"))
    assert losses_of(ready.folder / "exp/plain") != losses
    assert masr.load(ready.folder / "exp/small").transcribe(np.zeros(16000, np.float32)) is not None


def test_a_run_with_other_noise_is_another_run(ready):
    (ready.folder / "noise").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(ready.folder / "noise/one.wav", noise, 16000)
    options = ["features.on_the_fly=true", "data.augment.noise.probability=1", "data.augment.noise.path=noise"]
    features.run(ready.config(*options))
    train.run(ready.config(*options))
    soundfile.write(ready.folder / "noise/two.wav", noise, 16000)
    with pytest.raises(ConfigError, match=r"changed: the recordings of data\.augment\.noise\.path"):
        train.run(ready.config(*options, "train.updates=4"))
    with pytest.raises(FileNotFoundError, match=r"data\.augment\.noise\.path: no recordings in nowhere"):
        train.run(ready.config(*options[:2], "data.augment.noise.path=nowhere"))


def test_a_run_of_before_there_was_augmentation_is_complete(ready, capsys):
    train.run(ready.config())
    seal = json.loads((ready.folder / "exp/small/complete.json").read_text())
    assert "augment" not in seal["inputs"]["config"]["data"]
    capsys.readouterr()
    train.run(ready.config())
    assert "train: complete in exp/small" in capsys.readouterr().out
