"""Soft prompts of a tiny Whisper: what they change, what they leave as it is, and how languages are added."""

from pathlib import Path

import pytest
import torch
from tiny_whisper import batch_of, build, config_of, search, write_tiny_whisper

from masr.adapt.soft_prompts import SoftPrompts
from masr.config import SoftPrompts as Options
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.hugging_face import write_hugging_face
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.stages.train import start_from
from masr.text.whisper_tokenizer import WhisperTokenizer

ROWS = [0, 1, 3]
KINDS = {
    "decoder": {"prompts": {"length": 3, "encoder": False, "deep": False, "languages": "own"}},
    "entire": {"prompts": {"length": 3, "bottleneck": 8}},
    "input": {"prompts": {"length": 2, "deep": False, "languages": "own"}, "language_codes": True},
    "add": {"prompts": {"length": 3, "languages": "add", "rank": 2}},
    "hadamard": {"prompts": {"length": 3, "languages": "hadamard", "bottleneck": 8}},
    "concat": {"prompts": {"length": 2, "languages": "concat", "own_length": 2}},
    "codes": {"language_codes": True},
}


@pytest.fixture(params=KINDS)
def model(request, tiny_whisper) -> WhisperRecognizer:
    return moved(build(tiny_whisper, adapt=KINDS[request.param]))


def moved(model: WhisperRecognizer) -> WhisperRecognizer:
    """With all that learns away from where it began."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def losses_of(model: WhisperRecognizer, speech, rows: list[int]) -> torch.Tensor:
    batch = batch_of(model, speech, rows)
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    return torch.stack(list(model.losses([encoded], batch).values()))


def test_they_change_what_is_heard_or_said(model, tiny_whisper, speech):
    assert not torch.allclose(losses_of(model, speech, ROWS), losses_of(build(tiny_whisper), speech, ROWS), atol=1e-2)


def test_without_a_language_the_model_is_the_plain_one(model, tiny_whisper, speech):
    """The language is found before anything that belongs to one is used."""
    if not model.by_language:
        return
    plain, batch = build(tiny_whisper), batch_of(model, speech, ROWS)
    given = batch.features, batch.feature_lengths
    assert torch.equal(model.encoder(*given).frames, plain.encoder(*given).frames)
    assert torch.equal(model.encode(*given).language_logits, plain.encode(*given).language_logits)


def test_utterances_in_several_languages_at_once_are_as_each_alone(model, speech):
    together = losses_of(model, speech, ROWS)
    alone = torch.cat([losses_of(model, speech, [row]) for row in ROWS], 1)
    assert torch.allclose(together, alone, atol=1e-4)
    batch = batch_of(model, speech, ROWS)
    assert search(model, batch, 3) == [search(model, batch_of(model, speech, [row]), 3)[0] for row in ROWS]


def test_cached_steps_give_what_all_tokens_at_once_give(model, speech):
    batch = batch_of(model, speech, [0, 3])
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    given, decoder, (ids, lengths) = (
        (encoded.frames, encoded.lengths),
        model.attention_decoder,
        batch.targets["transcript"],
    )
    at_once = decoder.log_probs(*given, ids, lengths, encoded.language_weights)
    state = decoder.start(*given, 2, encoded.language_weights)
    step = decoder.step(torch.full((4,), decoder.sos_eos), state)
    for position in range(int(lengths.min())):
        allowed = ~step[::2].isneginf()
        assert torch.allclose(step[::2][allowed], at_once[:, position][allowed], atol=1e-4)
        step = decoder.step(ids[:, position].repeat_interleave(2), state)


def test_only_they_learn(model, speech):
    before = model.hash_of_base()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.1)
    model.train()
    sum(model.objectives(batch_of(model, speech, ROWS)).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in learning)
    optimizer.step()
    assert model.hash_of_base() == before


def test_a_folder_has_little_more_than_they(model, speech, tmp_path: Path):
    save_model(tmp_path, model)
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (tmp_path / WEIGHTS).stat().st_size < 4 * numbers + 10_000
    assert torch.equal(losses_of(load_model(tmp_path), speech, ROWS), losses_of(model, speech, ROWS))


def test_with_languages_of_their_own_another_one_changes_nothing(tiny_whisper, speech, tmp_path: Path):
    """A model of el and es learns ro, which begins as es: el and es stay bit for bit what they were."""
    adapt = {"prompts": {"length": 3, "languages": "add", "bottleneck": 8}, "language_codes": True}
    old = moved(build(tiny_whisper, languages=["el", "es"], adapt=adapt))
    save_model(tmp_path, old)
    new = build(tiny_whisper, adapt=adapt | {"only": ["ro"], "near": {"ro": "es", "es": "el"}})
    start_from(tmp_path, new)
    new.start_near()
    learning = {name for name, parameter in new.named_parameters() if parameter.requires_grad}
    assert learning == {
        "encoder.prompts.left.ro", "encoder.prompts.right.ro", "attention_decoder.prompts.left.ro",
        "attention_decoder.prompts.right.ro", "attention_decoder.language_vectors.own.ro",
    }  # fmt: skip
    for left, right in ((side.left, side.right) for side in (new.encoder.prompts, new.attention_decoder.prompts)):
        assert torch.equal(left["ro"], left["es"]) and torch.equal(right["ro"], right["es"])
    moved_on = [p for p in new.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved_on, 0.1)
    sum(new.train().objectives(batch_of(new, speech, [3])).values()).backward()
    optimizer.step()
    batch = batch_of(new.eval(), speech, [0, 1])
    known = batch_of(old, speech, [0, 1])
    after = new.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    before = old.encode(known.features, known.feature_lengths, known.allowed_languages)
    assert torch.equal(after.frames, before.frames)
    targets = batch.targets["transcript"]
    new_loss = new.attention_decoder.loss(after.frames, after.lengths, *targets, after.language_weights)
    old_loss = old.attention_decoder.loss(before.frames, before.lengths, *targets, before.language_weights)
    assert torch.equal(new_loss, old_loss)


@pytest.mark.parametrize("kind", ["shared", "own", "add", "hadamard", "concat"])
def test_folding_the_residual_network_changes_nothing(kind):
    torch.manual_seed(0)
    prompts = SoftPrompts(Options(length=3, languages=kind, bottleneck=4), 2, 8, ["be", "ru"])
    for parameter in prompts.parameters():
        parameter.data += torch.randn_like(parameter)
    weights = torch.eye(2)
    before = prompts(weights)
    prompts.fold()
    assert torch.allclose(prompts(weights), before, atol=1e-6) and not list(prompts.named_parameters("mlp"))[9:]
    assert not any(name.startswith("mlp") for name, _ in prompts.named_parameters())


def test_they_begin_as_what_languages_share():
    prompts = SoftPrompts(Options(length=3, languages="add"), 2, 8, ["be", "ru"])
    assert torch.equal(prompts(torch.eye(2)), prompts.shared[:, None].expand(-1, 2, -1, -1))


def test_what_cannot_be(tiny_whisper, tmp_path):
    with pytest.raises(ValueError, match="prompts.length=50: the decoder has no room left for a text"):
        build(tiny_whisper, adapt={"prompts": {"length": 50}})
    with pytest.raises(ValueError, match="only, near: no xx among the languages el, es, ro"):
        build(tiny_whisper, adapt={"prompts": {"length": 2, "languages": "own"}, "only": ["xx"]})
    with pytest.raises(ValueError, match="only, near: no xx among the languages el, es, ro"):
        build(tiny_whisper, adapt={"prompts": {"length": 2, "languages": "own"}, "near": {"ro": "xx"}})
    with pytest.raises(ValueError, match="nothing is one language's own"):
        build(tiny_whisper, adapt={"prompts": {"length": 2}, "near": {"ro": "es"}})
    save_model(tmp_path / "a", build(tiny_whisper, adapt=KINDS["add"]))
    config = tmp_path / "a/config.yaml"
    config.write_text(config.read_text().replace(str(tiny_whisper), str(write_tiny_whisper(tmp_path / "b", seed=1))))
    with pytest.raises(ValueError, match="it is another model"):
        load_model(tmp_path / "a")


def test_only_some_languages_of_what_all_share(tiny_whisper):
    """Then all of it learns, from their recordings alone."""
    whole = build(tiny_whisper, adapt={"only": ["ro"]})
    assert whole.encoder.conv1.weight.requires_grad
    both = {"prompts": {"length": 2, "languages": "add"}, "lora": {"rank": 2}, "only": ["ro"]}
    learning = [name for name, p in build(tiny_whisper, adapt=both).named_parameters() if p.requires_grad]
    assert learning and all(name.endswith(".ro") for name in learning), "what languages share stays"


def test_of_languages_with_one_token_one_vector_is_exported(tiny_whisper, tmp_path):
    tokenizer = WhisperTokenizer.of_pretrained(str(tiny_whisper), ["ast", "el", "es"], {"ast": "es"})
    config = config_of(tiny_whisper, model={"adapt": {"language_codes": True}})
    model = WhisperRecognizer(config, tokenizer, None, pretrained_whisper(str(tiny_whisper)))
    vectors = model.attention_decoder.language_vectors.own
    for number, vector in enumerate(vectors.values()):
        vector.data.fill_(float(number))
    with pytest.raises(ValueError, match="several languages have one token: name one of ast, el, es"):
        write_hugging_face(model, tmp_path / "all")
    for language in ("ast", "es"):
        folder = write_hugging_face(model, tmp_path / language, language)
        embedding = pretrained_whisper(str(folder)).model.decoder.embed_tokens.weight
        assert torch.equal(embedding[tokenizer.special("es")], vectors[language])
