"""LoRA experts of a tiny Whisper: alone, in mixed batches, routed, fused and merged."""

import copy
from pathlib import Path

import pytest
import torch
from tiny_whisper import batch_of, build, moved, search

from masr.adapt.experts import _first_direction
from masr.models.folder import WEIGHTS, load_model, save_model
from masr.models.whisper import WhisperRecognizer

ROWS = [0, 1, 3]
EXPERTS = {"rank": 2, "alpha": 4, "per_language": True}
KINDS = {
    "shared": {"lora": {"rank": 3, "alpha": 3, "dropout": 0.1}}, "experts": {"lora": EXPERTS},
    "fused": {"lora": EXPERTS | {"fused": True}}, "soft": {"lora": EXPERTS, "routing": "soft"},
    "with prompts": {"lora": EXPERTS, "prompts": {"length": 2, "languages": "add"}},
    "classified": {"lora": EXPERTS, "classifier": True},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def model(request, tiny_whisper) -> WhisperRecognizer:
    return moved(build(tiny_whisper, adapt=KINDS[request.param]))


def frames_of(model: WhisperRecognizer, speech, rows: list[int], weights: torch.Tensor | None) -> torch.Tensor:
    batch = batch_of(model, speech, rows)
    return model.encoder(batch.features, batch.feature_lengths, weights).frames


def losses_of(model: WhisperRecognizer, speech, rows: list[int]) -> torch.Tensor:
    batch = batch_of(model, speech, rows)
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    return torch.stack(list(model.losses([encoded], batch).values()))


def test_new_ones_change_nothing(tiny_whisper, speech):
    for adapt in KINDS.values():
        model = build(tiny_whisper, adapt={"lora": adapt["lora"]})
        plain = losses_of(build(tiny_whisper), speech, ROWS)[0]
        assert torch.allclose(losses_of(model, speech, ROWS)[0], plain, atol=1e-5)


def test_utterances_in_several_languages_at_once_are_as_each_alone(model, speech):
    together = losses_of(model, speech, ROWS)
    alone = torch.cat([losses_of(model, speech, [row]) for row in ROWS], 1)
    assert torch.allclose(together, alone, atol=1e-4)
    batch = batch_of(model, speech, ROWS)
    assert search(model, batch, 3) == [search(model, batch_of(model, speech, [row]), 3)[0] for row in ROWS]
    batch.allowed_languages[:] = True
    assert all(len(tokens) <= model.attention_decoder.longest for tokens in search(model, batch, 2))


def test_one_language_of_soft_weights_is_its_expert(tiny_whisper, speech):
    model = moved(build(tiny_whisper, adapt=KINDS["experts"]))
    one_hot = torch.eye(3)[[1, 0, 2]]
    hard = frames_of(model, speech, ROWS, one_hot)
    nearly = frames_of(model, speech, ROWS, one_hot.clamp(min=1e-6))
    assert torch.allclose(hard, nearly, atol=1e-3) and not torch.equal(hard, nearly)
    assert torch.equal(frames_of(model, speech, ROWS, one_hot), hard)  # scales are plain again
    assert not torch.allclose(frames_of(model, speech, ROWS, None)[:, : hard.shape[1]], hard, atol=1e-2)


def test_a_fusion_begins_with_each_languages_own_expert(tiny_whisper, speech, tmp_path: Path):
    model, fused = (moved(build(tiny_whisper, adapt=KINDS[kind])) for kind in ("experts", "fused"))
    fused.load_state_dict(model.state_dict(), strict=False)
    for part in (fused.encoder, fused.attention_decoder):
        part.fusion.data = torch.eye(3).repeat(2, 1, 1)
    assert torch.allclose(losses_of(fused, speech, ROWS), losses_of(model, speech, ROWS), atol=1e-4)
    sum(fused.objectives(batch_of(fused, speech, ROWS)).values()).backward()
    assert fused.encoder.fusion.grad.abs().sum() > 0


def test_only_they_learn(model, speech):
    before = model.hash_of_base()
    learning = [p for p in model.parameters() if p.requires_grad]
    model.train()
    sum(model.objectives(batch_of(model, speech, ROWS)).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in learning)
    torch.optim.SGD(learning, 0.1).step()
    assert model.hash_of_base() == before


@pytest.mark.parametrize("adapt", [{"lora": EXPERTS | {"rank": 16, "alpha": 16}}, {"prompts": {"length": 16}}])
def test_a_few_utterances_are_learnt_by_heart(tiny_whisper, speech, adapt):
    model = build(tiny_whisper, adapt=adapt)
    batch = batch_of(model, speech, ROWS)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        sum(value for name, value in model.objectives(batch).items() if name.startswith("attention")).backward()
        optimizer.step()
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    decoder, texts = model.attention_decoder, batch.targets["transcript"]
    hidden = decoder.hidden(encoded.frames, encoded.lengths, *texts, encoded.language_weights)
    logits, tokens, _ = decoder.text_logits(hidden, *texts)
    said = tokens != decoder.sos_eos  # of which this random Whisper's vector is zero
    assert torch.equal(logits.argmax(-1)[said], tokens[said])


def test_an_expert_learns_from_its_language_alone(tiny_whisper, speech):
    model = moved(build(tiny_whisper, adapt=KINDS["experts"]))
    sum(model.objectives(batch_of(model, speech, [1])).values()).backward()
    alone = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert alone and all(".el." in name and gradient.any() for name, gradient in alone.items())
    model.zero_grad()
    losses = model.objectives(batch_of(model, speech, [1, 3]))
    sum(loss for name, loss in losses.items() if name.endswith("/el")).backward(retain_graph=True)
    learnt = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert not any(".es." in name for name in learnt)
    assert all(torch.allclose(learnt[name], gradient, rtol=1e-3, atol=1e-3) for name, gradient in alone.items())


def test_a_folder_holds_little_more_than_they(model, speech, tmp_path: Path):
    save_model(tmp_path, model)
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (tmp_path / WEIGHTS).stat().st_size < 4 * numbers + 40_000
    assert torch.equal(losses_of(load_model(tmp_path), speech, ROWS), losses_of(model, speech, ROWS))


def test_a_copy_has_its_own_experts(model, speech):
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data.zero_()
    before = losses_of(model, speech, ROWS)
    losses_of(copied, speech, [0])
    assert torch.equal(losses_of(model, speech, ROWS), before)


@pytest.mark.parametrize(("kind", "rank"), [("cat", None), ("svd", 6), ("ties_svd", 2), ("dare_linear", None)])
def test_experts_become_one(tiny_whisper, speech, kind, rank):
    model = moved(build(tiny_whisper, adapt=KINDS["experts"]))
    mean = torch.full((3, 3), 1 / 3)
    expected = frames_of(model, speech, ROWS, mean)
    model.encoder.experts.merge(kind, rank, 0.9)
    merged = frames_of(model, speech, ROWS, torch.eye(3))
    assert torch.equal(frames_of(model, speech, ROWS, mean), merged)
    if kind in ("cat", "svd"):  # exact
        assert torch.allclose(merged, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("kind", ["cat", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "ties"])
def test_experts_that_are_equal_become_the_same_one(tiny_whisper, speech, kind):
    model = moved(build(tiny_whisper, adapt=KINDS["experts"]))
    first, *others = model.encoder.experts.names
    for other in others:
        model.encoder.experts.copy_language(first, other)
    expected = frames_of(model, speech, ROWS, torch.eye(3))
    model.encoder.experts.merge(kind, None if kind in ("cat", "ties") else 6, 1.0)
    assert torch.allclose(frames_of(model, speech, ROWS, torch.eye(3)), expected, atol=1e-4)


def test_dropout_would_depend_on_the_order_of_languages(tiny_whisper):
    with pytest.raises(ValueError, match="lora.dropout: must be 0 with per_language"):
        build(tiny_whisper, adapt={"lora": EXPERTS | {"dropout": 0.1}})


def test_arrow_gives_inputs_to_the_experts_that_they_suit(tiny_whisper, speech):
    """An input along the direction of an expert is mostly its own; the language does not matter."""
    model = moved(build(tiny_whisper, adapt={"lora": EXPERTS, "routing": "arrow"}))
    layer = model.encoder.blocks[0].fc1
    expected = torch.linalg.svd(layer.lora_B["es"].weight @ layer.lora_A["es"].weight)[2][0]
    found = _first_direction(layer, "es")
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-5)
    shares = model.encoder.experts._suiting(layer, 50 * found[None, None])
    assert shares.argmax() == 1
    one = frames_of(model, speech, ROWS, torch.eye(3))
    assert torch.equal(one, frames_of(model, speech, ROWS, torch.eye(3)[[1, 2, 0]]))
    assert not torch.allclose(one, frames_of(model, speech, ROWS, None)[:, : one.shape[1]], atol=1e-2)
    model.train()  # now each learns its own language
    learning = frames_of(model, speech, ROWS, torch.eye(3))
    model.encoder.experts.arrow = False
    assert torch.equal(learning, frames_of(model, speech, ROWS, torch.eye(3)))


def test_what_is_routed_is_as_if_its_language_were_given(tiny_whisper, speech):
    """A batch whose languages Whisper finds, beside each utterance alone with the language that was found."""
    for routing in ("hard", "soft"):
        model = moved(build(tiny_whisper, adapt={"lora": EXPERTS, "routing": routing}))
        batch = batch_of(model, speech, ROWS)
        batch.allowed_languages[:] = True
        with torch.no_grad():
            together = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
        weights = together.language_weights
        assert weights.shape == (3, 3) and (routing == "soft" or (weights.amax(1) == 1).all())
        for row, number in enumerate(ROWS):
            alone = frames_of(model, speech, [number], weights[row : row + 1])
            assert torch.allclose(together.frames[row, : alone.shape[1]], alone[0], atol=1e-4)


def test_a_language_is_named_among_those_that_are_allowed_as_whisper_itself_does(tiny_whisper, speech):
    experts, plain = (build(tiny_whisper, adapt=adapt) for adapt in ({"lora": EXPERTS}, {}))
    batch = batch_of(experts, speech, ROWS)
    batch.allowed_languages = torch.tensor([[True, False, True]] * 3)
    given = batch.features, batch.feature_lengths, batch.allowed_languages
    one, other = moved(experts).encode(*given), plain.encode(*given)
    assert torch.allclose(one.language_logits, other.language_logits, atol=1e-4)
    assert torch.equal(one.language_weights.argmax(1), other.language_weights.argmax(1))
    assert not one.language_weights[:, 1].any()


def test_a_classifier_learns_to_name_languages_from_whisper_as_it_comes(tiny_whisper, speech):
    model = moved(build(tiny_whisper, adapt={"lora": EXPERTS, "classifier": True}))
    batch = batch_of(model, speech, ROWS)
    given = batch.features, batch.feature_lengths, torch.ones(3, 3, dtype=torch.bool)
    own = [name for name, _ in model.named_parameters() if name.startswith("language_classifier")]
    optimizer = torch.optim.Adam(model.language_classifier.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (loss := losses_of(model, speech, ROWS)[-1].sum()).backward()
        learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert learning == {*own}, "of this loss"
        optimizer.step()
        model.zero_grad()
    assert loss < 0.1
    encoded = model.eval().encode(*given)
    assert [model.languages[n] for n in encoded.language_weights.argmax(1).tolist()] == batch.languages
    assert torch.equal(encoded.frames, frames_of(model, speech, ROWS, encoded.language_weights))
    assert {*own} <= model.learned(model.state_dict()).keys()
    batch.allowed_languages[:] = torch.tensor([True, True, False])
    assert not model.encode(*given[:2], batch.allowed_languages).language_weights[:, 2].any()


@pytest.mark.parametrize(
    ("sections", "error"),
    [
        ({"language_classifier": {"weight": 0.0}}, "adapt.classifier: learns only from"),
        ({"only": ["ro"]}, "adapt.only: a classifier would hear no other"),
    ],
)
def test_a_classifier_that_could_not_learn(tiny_whisper, sections, error):
    adapt = {"lora": EXPERTS, "classifier": True} | {"only": sections.pop("only", [])}
    with pytest.raises(ValueError, match=error):
        build(tiny_whisper, adapt=adapt, **sections)


def test_layers_that_are_not_there(tiny_whisper):
    with pytest.raises(ValueError, match="model.adapt.lora.modules: .*q_proy"):
        build(tiny_whisper, adapt={"lora": EXPERTS | {"modules": ["q_proy"]}})
