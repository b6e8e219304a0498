"""Shapes: B batch, T frames, F mel bins, U tokens, K languages."""

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from masr.config import Config, Decode, LanguageModel, Vocab
from masr.data.batches import Batch, Tokens
from masr.decode.alignment import add_times
from masr.decode.hypothesis import Hypothesis
from masr.decode.language_models import estimate_models
from masr.decode.search import METHODS, Searcher
from masr.decode.utterances import utterances_of
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.recognizer import Recognizer, parameter_count
from masr.nn.language_model import LSTMLanguageModel
from masr.text.tokenizer import START_END, Tokenizer, train_tokenizer
from masr.vocab.tree import Tree, balanced

TEXTS = {"el": ["ένα δύο τρία"], "es": ["uno dos tres", "cuatro"], "ro": ["unu doi trei"]}
UTTERANCES = [("es", "uno dos", 90), ("el", "τρία", 61), ("es", "cuatro", 75), ("ro", "trei", 58)]
ENCODER = {"layers": 2, "width": 16, "heads": 2, "feedforward": 16, "kernel": 5, "subsampling_channels": 4}
DECODER = {"weight": 0.3, "layers": 1, "width": 8, "heads": 2, "feedforward": 8}
EVERYTHING = {
    "ctc": {"weight": 0.7, "intermediate_layers": [1], "intermediate_weight": 0.25},
    "attention_decoder": DECODER, "language_classifier": {"weight": 0.1},
}  # fmt: skip
TREES = EVERYTHING | {"ctc": EVERYTHING["ctc"] | {"hierarchical": True, "upsampling": 2}}
BY_LANGUAGE = EVERYTHING | {"ctc": EVERYTHING["ctc"] | {"per_language": True, "upsampling": 2}}
TRANSCRIBING = [name for name, method in METHODS.items() if not (method.translates or method.whisper)]
OBJECTIVES = ("ctc", "intermediate-ctc", "attention", "lid")


def build_config(output: str = "softmax", **model) -> Config:
    sections = {"name": "test", "features": {"mel_bins": 20}, "model": {"encoder": ENCODER, **model}}
    sections["vocab"] = {"output": output}
    return Config.model_validate(sections)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, Vocab())


@pytest.fixture(params=["flat", "trees", "by language"])
def recognizer(tokenizer, request) -> Recognizer:
    """With all heads; with flat softmaxes, or hierarchical ones of the decoder and of CTC, or CTC by language."""
    if request.param == "flat":
        return build(tokenizer, **EVERYTHING)
    if request.param == "by language":
        return build(tokenizer, **BY_LANGUAGE)
    return build(tokenizer, balanced(tokenizer.pieces, seed=1), **TREES)


def build(tokenizer: Tokenizer, tree: Tree | None = None, **model) -> Recognizer:
    torch.manual_seed(0)
    output = "softmax" if tree is None else "balanced"
    recognizer = Recognizer(build_config(output, **model), tokenizer, tree).eval()
    recognizer.set_statistics(torch.full((20,), -3.0), torch.full((20,), 2.0))
    return recognizer


def make_batch(tokenizer: Tokenizer, rows: list[int]) -> Batch:
    """Utterances by number, padded to the longest of them, with the same features whatever the batch."""
    chosen = [UTTERANCES[row] for row in rows]
    features = [torch.randn(t, 20, generator=torch.Generator().manual_seed(t)) - 3 for _, _, t in chosen]
    ids = [torch.tensor(tokenizer.encode(text, code)) for code, text, _ in chosen]
    return Batch(
        ids=[text for _, text, _ in chosen], languages=[code for code, _, _ in chosen],
        features=pad_sequence(features, batch_first=True), feature_lengths=torch.tensor([t for _, _, t in chosen]),
        allowed_languages=torch.ones(len(rows), 3, dtype=torch.bool),
        targets={"transcript": Tokens(pad_sequence(ids, batch_first=True), torch.tensor([len(i) for i in ids]))},
    )  # fmt: skip


def silence(tokenizer: Tokenizer) -> Batch:
    """What a process without a share of an update is given."""
    batch = make_batch(tokenizer, [0])
    nothing = Tokens(torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    return Batch([], [], batch.features, batch.feature_lengths, batch.allowed_languages, {"transcript": nothing})


def test_names(tokenizer, recognizer):
    batch = make_batch(tokenizer, [0, 1, 2])
    assert set(recognizer.objectives(batch)) == {f"{name}/{code}" for name in OBJECTIVES for code in ("el", "es")}
    assert set(build(tokenizer).objectives(batch)) == {"ctc/el", "ctc/es"}
    assert all(value.shape == () for value in recognizer(batch).values())


def test_batch_is_the_sum_of_its_utterances(tokenizer, recognizer):
    """Also: padding changes no objective, since alone an utterance is not padded."""
    together = recognizer.objectives(make_batch(tokenizer, [0, 1, 2, 3]))
    sums: dict[str, Tensor] = {}
    for row in range(4):
        for name, value in recognizer.objectives(make_batch(tokenizer, [row])).items():
            sums[name] = sums.get(name, 0.0) + value
    assert together.keys() == sums.keys()
    for name, value in together.items():
        assert value.item() == pytest.approx(sums[name].item(), rel=1e-5), name


def test_padding_is_not_read(tokenizer, recognizer):
    batch, garbage = make_batch(tokenizer, [0, 1, 3]), make_batch(tokenizer, [0, 1, 3])
    for row in (1, 2):
        garbage.features[row, garbage.feature_lengths[row] :] = 50.0
        garbage.targets["transcript"].ids[row, garbage.targets["transcript"].lengths[row] :] = 2
    found = recognizer.objectives(garbage)
    for name, value in recognizer.objectives(batch).items():
        assert value.item() == pytest.approx(found[name].item(), rel=1e-5), name


def test_gradient_of_a_batch_is_the_sum_of_gradients(tokenizer, recognizer):
    def gradients(*batches: list[int]) -> dict[str, Tensor]:
        recognizer.zero_grad()
        for rows in batches:
            torch.stack(list(recognizer(make_batch(tokenizer, rows)).values())).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in recognizer.named_parameters()}

    split = gradients([0, 3], [1, 2])
    for name, gradient in gradients([0, 1, 2, 3]).items():
        close = 1e-6 + 1e-4 * gradient.abs().max().item()
        assert torch.allclose(gradient, split[name], rtol=1e-4, atol=close), name


def test_intermediate_objective_is_the_ctc_loss_of_the_block(tokenizer, recognizer):
    batch = make_batch(tokenizer, [0, 2])
    encoded = recognizer.encode(batch.features, batch.feature_lengths)
    found, losses = recognizer.objectives(batch), partial(recognizer._ctc_loss, batch=batch)
    assert found["ctc/es"].item() == losses(encoded.frames, encoded.lengths).sum().item()
    expected = losses(encoded.intermediate[0], encoded.lengths).sum().item()
    assert found["intermediate-ctc/es"].item() == expected != found["ctc/es"].item()


def test_features_are_normalised(tokenizer, recognizer):
    batch = make_batch(tokenizer, [0])
    before = recognizer.objectives(batch)["ctc/es"].item()
    recognizer.set_statistics(torch.full((20,), -4.0), torch.full((20,), 1.0))
    batch.features = (batch.features + 3.0) / 2.0 - 4.0
    assert recognizer.objectives(batch)["ctc/es"].item() == pytest.approx(before, rel=1e-5)


def test_weights(tokenizer, recognizer):
    weights = recognizer.objective_weights()
    assert weights == pytest.approx({"ctc": 0.525, "intermediate-ctc": 0.175, "attention": 0.3, "lid": 0.1})
    assert build(tokenizer).objective_weights() == {"ctc": 1.0}
    assert build(tokenizer, ctc={"weight": 0.0}, attention_decoder=DECODER).objective_weights() == {"attention": 0.3}


def test_batch_without_utterances_gives_zero_gradients(tokenizer, recognizer):
    losses = recognizer(silence(tokenizer))
    assert {name: value.item() for name, value in losses.items()} == {"ctc/": 0.0}
    losses["ctc/"].backward()
    for name, parameter in recognizer.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_language_is_that_of_the_classifier(tokenizer, recognizer):
    batch = make_batch(tokenizer, [0, 1])
    encoded = recognizer.encode(batch.features, batch.feature_lengths)
    torch.nn.init.zeros_(recognizer.language_classifier.output.weight)
    recognizer.language_classifier.output.bias.data = torch.tensor([0.0, 0.0, 5.0])
    assert recognizer.predict_languages(encoded, [[], []], batch.allowed_languages) == ["ro", "ro"]


def test_frame_seconds(tokenizer):
    assert build(tokenizer).frame_seconds == pytest.approx(0.04)


def test_saved_model_is_the_same(tokenizer, recognizer, tmp_path: Path):
    save_model(tmp_path / "model", recognizer)
    loaded = load_model(tmp_path / "model")
    assert loaded.config == recognizer.config
    assert loaded.tokenizer.pieces == tokenizer.pieces and loaded.tokenizer.languages == tokenizer.languages
    assert not loaded.training
    for name, tensor in recognizer.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    batch = make_batch(tokenizer, [0, 1, 3])
    expected = recognizer.objectives(batch)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.objectives(batch).items())


def test_half_precision_weights_are_read_as_float32(tokenizer, recognizer, tmp_path: Path):
    save_model(tmp_path, recognizer)
    halves = {name: tensor.half() for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(halves, tmp_path / WEIGHTS)
    loaded = load_model(tmp_path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, halves[name].float()), name
    batch = make_batch(tokenizer, [0, 1])
    expected = recognizer.objectives(batch)
    for name, value in loaded.objectives(batch).items():
        assert value.item() == pytest.approx(expected[name].item(), rel=0.01), name


def test_weights_of_another_model_are_refused(tokenizer, recognizer, tmp_path: Path):
    save_model(tmp_path, build(tokenizer), recognizer.state_dict())
    with pytest.raises(ValueError, match="attention_decoder"):
        load_model(tmp_path)


def test_another_vocabulary_is_refused(tokenizer, recognizer, tmp_path: Path):
    save_model(tmp_path, recognizer)
    description = tmp_path / "vocab/languages.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"languages": ["es", "ro", "el"]}))
    train_tokenizer({"es": ["otra cosa"]}, Vocab()).save(tmp_path / "other")
    (tmp_path / "vocab/tokens.model").write_bytes((tmp_path / "other/tokens.model").read_bytes())
    with pytest.raises(ValueError, match="not those that languages"):
        load_model(tmp_path)


def test_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"holds no trained model .*masr train"):
        load_model(tmp_path)


def test_bad_sizes_of_the_config_are_refused(tokenizer):
    with pytest.raises(ValueError, match="even heads"):
        build(tokenizer, encoder=ENCODER | {"heads": 3})


def test_parameter_count(tokenizer):
    model = build(tokenizer)
    assert parameter_count(model) == sum(tensor.numel() for tensor in model.state_dict().values()) - 2 * 20


def test_level_and_microphone_do_not_matter_when_utterances_lose_their_mean(tokenizer):
    """A gain and a filter add a constant to every mel bin's logarithm."""
    features, lengths = torch.randn(2, 60, 20), torch.tensor([60, 40])
    channel = torch.randn(20)
    for normalization, same in (("utterance", True), ("corpus", False)):
        recognizer = build(tokenizer, normalization=normalization).eval()
        frames = recognizer.encode(features, lengths).frames
        assert torch.allclose(recognizer.encode(features + channel, lengths).frames, frames, atol=1e-4) == same


def test_a_model_of_an_older_masr_loads(tokenizer, recognizer, tmp_path: Path):
    """An option that did not exist yet gets its default."""
    save_model(tmp_path, recognizer)
    config = tmp_path / "config.yaml"
    config.write_text("".join(line for line in config.open() if "look_ahead" not in line))
    assert load_model(tmp_path).config == recognizer.config


def test_a_model_that_cannot_be_written_leaves_the_old_one(tokenizer, recognizer, tmp_path: Path, monkeypatch):
    save_model(tmp_path, recognizer)
    before = (tmp_path / WEIGHTS).read_bytes()

    def full(tensors, path, header):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("masr.tensor_files.save_file", full)
    with pytest.raises(OSError, match="cannot write the model in .*No space left.* Free space and run the same"):
        save_model(tmp_path, recognizer)
    assert (tmp_path / WEIGHTS).read_bytes() == before and not list(tmp_path.glob("*.partial"))
    load_model(tmp_path)


def test_the_classifier_names_an_allowed_language(tokenizer, recognizer):
    encoded = recognizer.encode(torch.randn(2, 60, 20), torch.tensor([60, 40]))
    for number, code in enumerate(tokenizer.languages):
        allowed = torch.zeros(2, len(tokenizer.languages), dtype=torch.bool)
        allowed[:, number] = True
        assert recognizer.predict_languages(encoded, [], allowed) == [code, code]


@pytest.mark.parametrize("method", TRANSCRIBING)
def test_every_search_can_do_with_more_ctc_frames_than_encoder_frames(tokenizer, method):
    recognizer = build(tokenizer, ctc={"upsampling": 3}, attention_decoder=DECODER)
    assert recognizer.frame_seconds == pytest.approx(0.04 / 3)
    encoded = recognizer.encode(torch.randn(2, 60, 20), torch.tensor([60, 40]))
    utterances = utterances_of(recognizer, encoded, torch.ones(2, 3, dtype=torch.bool))
    ngrams = estimate_models(TEXTS, tokenizer, LanguageModel())
    neural = LSTMLanguageModel(len(tokenizer), 8, 1, 0.0, START_END).eval()
    options = Decode.model_validate({"n_best": 2, "lattice": {"lattice_beam": 2.0}})
    searcher = Searcher(recognizer, options, ngrams, neural)
    settings = METHODS[method].scales(options)
    results = searcher(method, utterances, settings)
    assert len(results) == len(settings)
    found = results[-1]
    log_probs, lengths = utterances.log_probs, utterances.ctc_lengths
    assert lengths.tolist() == [45, 30]
    for row, nbest in enumerate(found):
        add_times(nbest[0], log_probs[row, : lengths[row]], recognizer)
        assert all(0 <= start < end <= 0.61 for start, end in nbest[0].timestamps)


# --- hierarchical softmax --------------------------------------------------------------------------------------------


def test_a_tree_goes_with_the_model(tokenizer, tmp_path: Path):
    model = build(tokenizer, balanced(tokenizer.pieces, seed=1), **TREES)
    save_model(tmp_path, model)
    batch = make_batch(tokenizer, [0, 1])
    found = load_model(tmp_path).objectives(batch)
    assert {name: value.item() for name, value in model.objectives(batch).items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}
    )
    (tmp_path / "vocab/tree.json").unlink()
    with pytest.raises(ValueError, match="no tree for this vocabulary"):
        load_model(tmp_path)


def test_blank_is_the_first_decision_of_a_ctc_tree(tokenizer):
    model = build(tokenizer, balanced(tokenizer.pieces, seed=1), **TREES)
    frames = torch.randn(1, 3, 16)
    log_probs, lengths = model.ctc.log_probs(frames, torch.tensor([3]))
    assert log_probs.shape == (1, 6, len(tokenizer)) and lengths.tolist() == [6]
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(1, 6), atol=1e-6)
    decisions = model.ctc.output(frames).unflatten(-1, (2, -1)).flatten(1, 2)
    assert torch.allclose(log_probs[..., 0].exp(), decisions[..., -1].sigmoid(), atol=1e-6)


def test_trees_need_a_tree_and_something_must_be_trained(tokenizer):
    with pytest.raises(ValueError, match=r"model\.ctc\.hierarchical needs a tree: set vocab\.output"):
        build(tokenizer, ctc={"hierarchical": True})
    with pytest.raises(ValueError, match=r"vocab\.output=balanced is used by nothing"):
        build(tokenizer, balanced(tokenizer.pieces, seed=1))
    with pytest.raises(ValueError, match="both 0: nothing learns to recognise"):
        build(tokenizer, ctc={"weight": 0.0})


ADAPTERS = {"layers": [1, 2], "bottleneck": 3}


def with_adapters(tokenizer: Tokenizer, weight: float = 0.1, decoder: dict | None = None, **adapters) -> Recognizer:
    encoder = ENCODER | {"language_adapters": ADAPTERS | adapters}
    given = {"encoder": encoder, "language_classifier": {"weight": weight}}
    return build(tokenizer, **given, **({"attention_decoder": decoder} if decoder else {}))


def choices() -> Iterator[dict]:
    """Every combination of what decides who learns from what."""
    names = ("gate", "shared_classifier", "previous", "detached", "language_loss", "summary_heard")
    values = (["softmax", "sigmoid"], [False, True], [False, True], [False, True], ["all", "last"], [False, True])
    for weights in ("summary", "mean", "frame", "sum", "average"):
        for chosen in itertools.product(*values):
            yield {"weights": weights, **dict(zip(names, chosen, strict=True))}


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_what_is_not_refused_learns_in_all_its_parts(tokenizer, weight):
    """A parameter without a gradient would stop a run of several processes, and never learn in one."""
    built = 0
    for options in choices():
        try:
            recognizer = with_adapters(tokenizer, weight, **options)
        except ValueError:
            continue
        built += 1
        losses = recognizer.train().objectives(make_batch(tokenizer, [0, 1, 2, 3]))
        sum(losses.values()).backward()
        unused = [name for name, p in recognizer.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused, options
    assert built >= (20 if weight == 0 else 40)


def test_adapters_that_cannot_learn_are_refused(tokenizer):
    for name in ("previous", "detached"):
        with pytest.raises(ValueError, match=f"{name}: a classifier that learns only from"):
            with_adapters(tokenizer, weight=0.0, **{name: True})
    with pytest.raises(ValueError, match="decoder: needs adapters in the encoder"):
        build(tokenizer, encoder=ENCODER | {"language_adapters": {"decoder": True}}, attention_decoder=DECODER)
    with pytest.raises(ValueError, match="and model.attention_decoder.weight"):
        build(tokenizer, encoder=ENCODER | {"language_adapters": ADAPTERS | {"decoder": True}})


def test_languages_are_named_by_the_prompt_or_by_what_was_taught_to(tokenizer):
    one, two = torch.tensor([[False, True, False]]), torch.tensor([[False, True, True]])
    features, lengths = torch.randn(1, 60, 20), torch.tensor([60])
    found = [[Hypothesis([3], 0.0)]]
    for weight, expected in ((0.0, {None}), (0.1, {"es", "ro"})):
        recognizer = with_adapters(tokenizer, weight)
        assert recognizer.predict_languages(recognizer.encode(features, lengths, one), found, one) == ["es"]
        assert recognizer.predict_languages(recognizer.encode(features, lengths, two), found, two)[0] in expected


def test_the_classifier_says_how_much_each_head_by_language_counts(tokenizer):
    model = build(tokenizer, **BY_LANGUAGE)
    encoded = model.encode(torch.randn(2, 60, 20), torch.tensor([60, 40]))
    allowed = torch.tensor([[True, False, True], [False, True, False]])
    mixture, _ = model.ctc_log_probs(encoded, allowed)
    probabilities = model.language_classifier.log_probs(encoded.frames, encoded.lengths).exp()
    each = [model.ctc_log_probs(encoded, torch.eye(3, dtype=torch.bool)[[k, k]])[0].exp() for k in range(3)]
    shares = probabilities[0, [0, 2]] / probabilities[0, [0, 2]].sum()
    assert torch.allclose(mixture[0].exp(), shares[0] * each[0][0] + shares[1] * each[2][0], atol=1e-5)
    assert torch.allclose(mixture[1].exp(), each[1][1], atol=1e-6)
    without = build(tokenizer, ctc={"per_language": True})
    encoded = without.encode(torch.randn(2, 60, 20), torch.tensor([60, 40]))
    alike, _ = without.ctc_log_probs(encoded, allowed)
    each = [without.ctc_log_probs(encoded, torch.eye(3, dtype=torch.bool)[[k, k]])[0].exp() for k in (0, 2)]
    assert torch.allclose(alike[0].exp(), (each[0][0] + each[1][0]) / 2, atol=1e-5)


def test_heads_by_language_and_a_tree_of_all_tokens_are_refused(tokenizer):
    ctc = {"per_language": True, "hierarchical": True}
    with pytest.raises(ValueError, match=r"model.ctc.per_language: a tree .* set one of the two to false"):
        build(tokenizer, balanced(tokenizer.pieces, seed=1), ctc=ctc)
