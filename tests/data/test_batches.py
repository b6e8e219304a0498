"""Batches and updates, on the miniature corpus. Shapes: B utterances, T frames, F mel bins, U tokens, K languages."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from masr.config import Features, SpecAugment
from masr.data.batches import Counts, CutFeatures, TrainingUpdates, Update, collate
from masr.data.features import UnusableAudio
from masr.models.recognizer import Recognizer
from masr.stages.features import load_cuts
from masr.stages.vocab import load_tokenizer
from masr.text.tokenizer import Tokenizer

F = 80


@pytest.fixture(scope="module")
def tokenizer(prepared) -> Tokenizer:
    return load_tokenizer(prepared.config())


@pytest.fixture(scope="module")
def cuts(prepared) -> list[Cut]:
    return load_cuts(prepared.config(), "train")


def updates_of(groups: list[list[Cut]], tokenizer: Tokenizer, **options) -> TrainingUpdates:
    defaults = {"augment": SpecAugment(), "seed": (1, 0), "device_seconds": 600.0}
    return TrainingUpdates(groups, tokenizer, Features(mel_bins=F), **(defaults | options))


def features_of(update: Update) -> dict[str, torch.Tensor]:
    """(T, F) of every utterance of a process's share."""
    rows = [
        (name, batch.features[row, : batch.feature_lengths[row]])
        for batch in update.micro_batches
        for row, name in enumerate(batch.ids)
    ]
    assert len(rows) == len(dict(rows))
    return dict(rows)


def audio_cut(path: Path, name: str = "from-audio", duration: float = 0.5) -> MonoCut:
    """A cut without stored features."""
    supervision = SupervisionSegment(name, name, 0.0, duration, text="a", language="es")
    recording = Recording.from_file(path, recording_id=name)
    return MonoCut(name, 0.0, duration, 0, supervisions=[supervision], recording=recording)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Half a second of noise."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    return path


def test_collate(cuts, tokenizer):
    chosen = [cuts[0], cuts[-1]]
    lengths = [5, 7]
    batch = collate([torch.full((length, F), float(length)) for length in lengths], chosen, tokenizer)
    assert batch.ids == [cut.id for cut in chosen] and batch.languages == ["el", "ro"] and len(batch) == 2
    assert batch.features.shape == (2, 7, F) and batch.feature_lengths.tolist() == lengths
    assert batch.features[:, :, 0].tolist() == [[5.0] * 5 + [0.0] * 2, [7.0] * 7]
    assert batch.allowed_languages.shape == (2, 3) and batch.allowed_languages.all()
    ids, id_lengths = batch.targets["transcript"]
    assert ids.dtype == torch.int64
    for row, cut in enumerate(chosen):
        supervision = cut.supervisions[0]
        expected = tokenizer.encode(supervision.text, supervision.language)
        assert ids[row, : id_lengths[row]].tolist() == expected and len(expected) > 0
        assert not ids[row, id_lengths[row] :].any()


def test_batch_moves_to_a_device(cuts, tokenizer):
    batch = collate([torch.zeros(5, F)], cuts[:1], tokenizer).to(torch.device("meta"))
    tensors = (batch.features, batch.feature_lengths, batch.allowed_languages, *batch.targets["transcript"])
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.ids == [cuts[0].id] and batch.audio is None


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("device_seconds", [600.0, 2.5])
def test_shares_of_the_processes_make_up_the_update(cuts, tokenizer, world_size, device_seconds):
    group = cuts[::7]
    whole = updates_of([group], tokenizer)[0]
    sizes = {"device_seconds": device_seconds, "world_size": world_size}
    shares = [updates_of([group], tokenizer, rank=rank, **sizes)[0] for rank in range(world_size)]
    tokens = sum(len(tokenizer.encode(cut.supervisions[0].text, cut.supervisions[0].language)) for cut in group)
    for share in shares:
        counts = sum(share.counts.values(), Counts())
        assert (counts.tokens, counts.utterances) == (tokens, len(group))
        assert share.seconds == pytest.approx(sum(cut.duration for cut in group))
        assert share.rejected == {}
    found = [features_of(share) for share in shares]
    assert sorted(name for share in found for name in share) == sorted(cut.id for cut in group)
    counts = [len(share) for share in found]
    assert max(counts) - min(counts) <= 1
    expected = features_of(whole)
    for share in found:
        for name, features in share.items():
            assert torch.equal(features, expected[name]), name  # SpecAugment included


def test_micro_batches_stay_within_device_seconds(cuts, tokenizer):
    update = updates_of([cuts[:20]], tokenizer, device_seconds=4.0)[0]
    assert len(update.micro_batches) > 3
    for batch in update.micro_batches:
        assert batch.features.shape[0] * batch.features.shape[1] <= 401 + len(batch)
    assert len(updates_of([cuts[:20]], tokenizer)[0].micro_batches) == 1


def test_masks_depend_on_utterance_and_seed_alone(cuts, tokenizer):
    first = features_of(updates_of([cuts[:6]], tokenizer)[0])
    moved = features_of(updates_of([[cuts[50]], [cuts[40], cuts[3]]], tokenizer)[1])
    assert torch.equal(moved[cuts[3].id], first[cuts[3].id])
    again = features_of(updates_of([cuts[:6]], tokenizer, seed=(2, 0))[0])
    assert not torch.equal(again[cuts[3].id], first[cuts[3].id])
    plain = features_of(updates_of([cuts[:6]], tokenizer, augment=None)[0])
    assert torch.equal(plain[cuts[3].id], CutFeatures(Features(mel_bins=F))(cuts[3]))
    assert not torch.equal(plain[cuts[3].id], first[cuts[3].id])


def test_same_utterance_drawn_twice_is_masked_in_two_ways(cuts, tokenizer):
    twice = [cuts[0].with_id(f"{cuts[0].id}#{i}") for i in range(2)]
    one, other = features_of(updates_of([twice], tokenizer)[0]).values()
    assert one.shape == other.shape and not torch.equal(one, other)


def test_order_of_an_update_does_not_matter(cuts, tokenizer):
    forward, backward = (updates_of([group], tokenizer)[0] for group in (cuts[:9], cuts[8::-1]))
    assert forward.micro_batches[0].ids == backward.micro_batches[0].ids
    assert torch.equal(forward.micro_batches[0].features, backward.micro_batches[0].features)


def test_features_are_computed_when_none_are_stored(audio):
    found = CutFeatures(Features(mel_bins=F))(audio_cut(audio))
    assert found.shape == (50, F) and found.dtype == torch.float32 and found.isfinite().all()


def test_unreadable_audio_is_skipped_and_named(cuts, tokenizer, audio):
    bad = audio_cut(audio).with_id("from-audio#1")
    audio.write_bytes(b"not audio")
    update = updates_of([[*cuts[:2], bad]], tokenizer)[0]
    assert features_of(update).keys() == {cut.id for cut in cuts[:2]}
    assert list(update.rejected) == ["from-audio"] and "cannot be read" in update.rejected["from-audio"]
    assert (
        sum(update.counts.values(), Counts()).utterances == 3
    )  # what the others are divided by does not depend on who finds the bad one


def test_damaged_stored_features_are_named(cuts):
    cut = cuts[0].with_id("x")
    cut.features = cut.features.with_path_prefix("nowhere")
    cut.features.storage_path = "nowhere/at-all.lca"
    with pytest.raises(UnusableAudio, match="stored features cannot be read"):
        CutFeatures(Features(mel_bins=F))(cut)


def test_stored_features_that_are_not_numbers_are_refused(cuts, monkeypatch):
    monkeypatch.setattr("masr.data.batches.read_features", lambda cut: np.full((9, F), np.nan, dtype=np.float32))
    with pytest.raises(UnusableAudio, match="NaN or infinite"):
        CutFeatures(Features(mel_bins=F))(cuts[0])


def test_share_without_utterances_is_silence(prepared, cuts, tokenizer):
    update = updates_of([cuts[:1]], tokenizer, rank=1, world_size=2)[0]
    (batch,) = update.micro_batches
    assert len(batch) == 0 and batch.languages == [] and sum(update.counts.values(), Counts()).utterances == 1
    torch.manual_seed(0)
    losses = Recognizer(prepared.config(), tokenizer)(batch)
    assert [value.item() for value in losses.values()] == [0.0]


def test_update_whose_recordings_are_all_bad_is_silence(tokenizer, audio):
    bad = audio_cut(audio)
    audio.write_bytes(b"")
    update = updates_of([[bad]], tokenizer)[0]
    assert [len(batch) for batch in update.micro_batches] == [0] and list(update.rejected) == ["from-audio"]


def groups_of(shares: list[Update], sample: int) -> set[frozenset[str]]:
    """Which recordings without text are compared with each other in a sample of an update, over all processes."""
    found: dict[tuple[int, int, int], set[str]] = {}
    for rank, share in enumerate(shares):
        for number, batch in enumerate(share.unlabelled[sample]):
            for name, group in zip(batch.ids, batch.groups.tolist(), strict=False):
                found.setdefault((rank, number, group), set()).add(name)
    return {frozenset(names) for names in found.values()}


@pytest.mark.parametrize("samples", [1, 2])
def test_the_update_decides_what_is_compared(cuts, tokenizer, samples):
    """Neither processes nor micro-batches part a group, whatever their number and size."""
    options = {"unlabelled": [cuts[:30]], "compared": 4, "samples": samples}
    alone = updates_of([cuts[:4]], tokenizer, **options)[0]
    for world_size, device_seconds in ((2, 600.0), (2, 3.0), (3, 0.1), (1, 3.0)):
        given = options | {"world_size": world_size, "device_seconds": device_seconds}
        shares = [updates_of([cuts[:4]], tokenizer, rank=rank, **given)[0] for rank in range(world_size)]
        for sample in range(samples):
            assert groups_of(shares, sample) == groups_of([alone], sample)
        assert {share.unlabelled_utterances for share in shares} == {30}
    found = set().union(*(groups_of([alone], sample) for sample in range(samples)))
    assert sorted(name for group in found for name in group) == sorted(cut.id for cut in cuts[:30])
    assert {len(group) for group in found} == {3, 4}
    reordered = updates_of([cuts[:4]], tokenizer, **options | {"unlabelled": [cuts[29::-1]]})[0]
    assert groups_of([reordered], 0) == groups_of([alone], 0)
    later = updates_of([cuts[:4]], tokenizer, seed=(1, 1), **options)[0]
    assert groups_of([later], 0) != groups_of([alone], 0), "other groups in another epoch"


def test_every_sample_hears_two_that_can_be_compared(cuts, tokenizer):
    options = {"compared": 16, "samples": 2}
    update = updates_of([cuts[:4]], tokenizer, unlabelled=[[cut] for cut in cuts[:9]], **options)[0]
    assert [len(batch.ids) for sample in update.unlabelled for batch in sample] == [2, 2]
    assert update.unlabelled_utterances == 4
    few = updates_of([cuts[:4]], tokenizer, unlabelled=[cuts[:3]], **options)[0]
    assert not few.unlabelled and few.unlabelled_utterances == 0, "nothing is divided by what has nothing to learn from"
