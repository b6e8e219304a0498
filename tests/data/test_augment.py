"""Augmentation of training audio, on real speech. S samples at 16 kHz, F mel bins."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.cut import Cut, PaddingCut
from scipy.signal import correlate, welch
from torch.utils.data import DataLoader

from masr.config import Augment, BackgroundNoise, Config, Data, Features, Reverberation, SurroundingSilence
from masr.config_effects import options_without_effect
from masr.data.audio_checks import UnusableAudio
from masr.data.augment import channel, noise, reverberation, waveform
from masr.data.augment.arrange import Arrangement, lay_out
from masr.data.augment.levels import active_power, mean_power
from masr.data.augment.pool import RecordingPool
from masr.data.augment.waveform import WaveformAugmentation
from masr.data.batches import CutFeatures, TrainingUpdates, load_usable, transcript_tokens
from masr.data.features import SAMPLING_RATE, load_audio, log_mel_of
from masr.data.sampling import EpochPlan, language_of, published_text_of
from masr.models.recognizer import speech_mean, utterance_mean
from masr.stages.features import load_cuts
from masr.stages.vocab import load_tokenizer

EVERYTHING = {
    "concatenate": {"probability": 0.5, "pause": [0.1, 0.3], "max_seconds": 6.0},
    "silence": {"probability": 0.5},
    "reverberation": {"probability": 0.5},
    "noise": {"probability": 0.5},
    "gain": {"probability": 0.5},
    "clipping": {"probability": 0.5},
    "channel": {"probability": 0.5},
}


def options_of(**parts: dict) -> Augment:
    return Augment.model_validate(parts)


def random_numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def config(prepared) -> Config:
    return prepared.config("features.on_the_fly=true")


@pytest.fixture(scope="module")
def tokenizer(config):
    return load_tokenizer(config)


@pytest.fixture(scope="module")
def cuts(config) -> list[Cut]:
    """72 of about a second: 36 recordings at two speeds."""
    return load_cuts(config, "train")


@pytest.fixture(scope="module")
def samples(cuts) -> np.ndarray:
    """(S,) four seconds."""
    return np.concatenate([load_audio(cut) for cut in cuts[:8:2]])


def decibels(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


def delay(changed: np.ndarray, original: np.ndarray) -> int:
    """Samples by which speech comes later."""
    return int(correlate(changed, original, method="fft").argmax()) - (len(original) - 1)


# --- levels and noise ------------------------------------------------------------------------------------------------


def test_silence_around_speech_does_not_change_its_level(samples):
    quiet = np.zeros(3 * SAMPLING_RATE, np.float32)
    assert active_power(np.concatenate([quiet, samples, quiet])) == pytest.approx(active_power(samples), rel=0.02)
    assert active_power(quiet) == 0 and active_power(quiet[:0]) == 0


@pytest.mark.parametrize("kind", ["white", "pink", "brown", "hum", "tones", "babble"])
def test_noise_has_the_snr_that_was_drawn(samples, cuts, kind):
    step = noise.Noise(BackgroundNoise(snr=[10.0, 10.0], kinds=[kind]), cuts)
    added = step(samples, random_numbers()) - samples
    assert added.dtype == np.float32 and len(added) == len(samples)
    assert decibels(active_power(samples) / mean_power(added)) == pytest.approx(10, abs=0.1)
    assert not np.array_equal(step(samples, random_numbers(1)) - samples, added)


@pytest.mark.parametrize(("slope", "decibels_an_octave"), [(0.0, 0.0), (1.0, -3.0), (2.0, -6.0)])
def test_coloured_noise_falls_with_frequency(slope, decibels_an_octave):
    frequencies, power = welch(noise.coloured(160000, slope, random_numbers()), SAMPLING_RATE, nperseg=2048)
    inside = (frequencies > 100) & (frequencies < 7000)
    found = np.polyfit(np.log2(frequencies[inside]), 10 * np.log10(power[inside]), 1)[0]
    assert found == pytest.approx(decibels_an_octave, abs=0.2)


def test_silence_gets_no_noise(cuts):
    nothing = np.zeros(8000, np.float32)
    assert np.array_equal(noise.Noise(BackgroundNoise(), cuts)(nothing, random_numbers()), nothing)


def test_babble_goes_on_without_what_cannot_be_read(cuts):
    gone = dataclasses.replace(cuts[0], duration=1e4)
    found = noise.babble([gone, cuts[2], cuts[4]], 6, 8000, random_numbers())
    assert active_power(found) > 0


def write_noise(folder: Path, name: str, samples: np.ndarray, rate: int = SAMPLING_RATE) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def test_recorded_noise_comes_from_files_at_any_depth_and_rate(samples, cuts, tmp_path):
    tone = 0.1 * np.sin(2 * np.pi * 440 / 8000 * np.arange(4000))
    write_noise(tmp_path, "a/b/short.wav", tone, 8000)
    (tmp_path / "a/readme.txt").write_text("no audio")
    step = noise.Noise(BackgroundNoise(path=str(tmp_path), snr=[0.0, 0.0]), cuts)
    added = step(samples, random_numbers()) - samples  # half a second, repeated
    frequencies, power = welch(added, SAMPLING_RATE, nperseg=4096)
    assert frequencies[power.argmax()] == pytest.approx(440, abs=5)
    assert decibels(active_power(samples) / mean_power(added)) == pytest.approx(0, abs=0.1)


def test_a_manifest_of_lhotse_is_a_pool_of_noise(cuts, tmp_path):
    CutSet.from_cuts(cuts[:2]).to_file(tmp_path / "noise.jsonl.gz")
    pool = RecordingPool(str(tmp_path / "noise.jsonl.gz"), "data.augment.noise.path")
    piece = pool.draw(random_numbers(), 0.25)
    assert len(piece) == 4000 and active_power(piece) > 0


def test_unusable_noise_is_passed_over_and_named_where_there_is_nothing_else(tmp_path):
    write_noise(tmp_path, "silent.wav", np.zeros(16000))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UnusableAudio, match=r"noise\.path: 5 recordings in a row cannot be used, the last one .*wav"):
        RecordingPool(str(tmp_path), "data.augment.noise.path").draw(random_numbers(), 1.0)
    write_noise(tmp_path, "good.wav", random_numbers().normal(0, 0.1, 16000))
    found = [RecordingPool(str(tmp_path), "x").draw(random_numbers(seed), 1.0) for seed in range(3)]
    assert all(active_power(piece) > 0 for piece in found)


def test_a_folder_without_recordings_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"data\.augment\.noise\.path: no recordings in .*expected a fold"):
            RecordingPool(str(path), "data.augment.noise.path")


# --- rooms -----------------------------------------------------------------------------------------------------------


def rt60_of(response: np.ndarray) -> float:
    """Seconds for 60 dB, from the energy that is still to come (Schroeder), between -5 and -35 dB."""
    to_come = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(to_come / to_come[0])
    times = np.arange(len(level)) / SAMPLING_RATE
    inside = (level < -5) & (level > -35)
    return -60 / np.polyfit(times[inside], level[inside], 1)[0]


@pytest.mark.parametrize("rt60", [0.2, 0.6])
def test_a_made_up_room_has_its_reverberation_time_and_direct_path(rt60):
    response = reverberation.decaying_noise(rt60, 3.0, random_numbers())
    assert response.argmax() == 0 and response[0] == 1
    tail = response[41:]
    assert rt60_of(tail) == pytest.approx(rt60, rel=0.05)
    assert decibels(1 / np.square(tail).sum()) == pytest.approx(3, abs=0.01)


def test_a_room_changes_speech_but_neither_its_times_nor_its_level(samples, tmp_path):
    late = np.concatenate([np.zeros(900), reverberation.decaying_noise(0.4, 6.0, random_numbers())])
    write_noise(tmp_path, "room.wav", 0.5 * late)
    for options in (Reverberation(), Reverberation(path=str(tmp_path))):
        wet = reverberation.Room(options)(samples, random_numbers())
        assert wet.shape == samples.shape and wet.dtype == np.float32
        assert delay(wet, samples) == 0
        assert decibels(active_power(wet) / active_power(samples)) == pytest.approx(0, abs=0.05)
        assert np.corrcoef(wet, samples)[0, 1] < 0.98


# --- channels --------------------------------------------------------------------------------------------------------


def power_between(samples: np.ndarray, low: float, high: float) -> float:
    frequencies, power = welch(samples, SAMPLING_RATE, nperseg=1024)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


@pytest.mark.parametrize("codec", ["telephone", "mu-law", "gsm"])
def test_a_telephone_passes_nothing_above_4_khz(samples, codec):
    bright = samples + noise.coloured(len(samples), 0.0, random_numbers()) * 0.01
    found = channel.telephone(bright, codec)
    assert found.shape == samples.shape and found.dtype == np.float32
    assert abs(delay(found, samples)) <= 2
    assert decibels(power_between(found, 4200, 8000) / power_between(bright, 4200, 8000)) < -25
    if codec != "gsm":
        assert decibels(power_between(found, 600, 3000) / power_between(bright, 600, 3000)) > -1


@pytest.mark.parametrize(("codec", "alike"), [("opus", 0.8), ("mp3", 0.95)])
def test_codecs_lose_something_but_no_time(samples, codec, alike):
    found = channel.compress(samples, codec, 0.97)
    assert found.shape == samples.shape and abs(delay(found, samples)) <= 2
    assert alike < np.corrcoef(found, samples)[0, 1] < 0.9999


def test_mu_law_has_256_steps_at_most():
    found = channel.mu_law(np.linspace(-1.2, 1.2, 100001))
    assert len(np.unique(found)) == 255 and found.max() == pytest.approx(1) and found.min() == pytest.approx(-1)
    assert abs(channel.mu_law(np.array([0.01]))[0] / 0.01 - 1) < 0.05


def test_a_microphone_raises_and_lowers_bands_as_drawn():
    flat = noise.coloured(160000, 0.0, random_numbers())
    curve = np.array([0, 0, 6, 6, -6, -6, -6.0])
    found = channel.equalize(flat, curve)
    centre = channel.BANDS
    for low, high, expected in ((centre[2], centre[3], 6), (centre[4], centre[6], -6)):
        ratio = power_between(found, low * 1.05, high * 0.95) / power_between(flat, low * 1.05, high * 0.95)
        assert decibels(ratio) == pytest.approx(expected, abs=0.3)
    assert delay(found, flat) == 0


def test_gain_and_clipping_do_what_was_drawn(samples):
    louder = channel.Amplifier(options_of(gain={"decibels": [6.0, 6.0]}).gain)(samples, random_numbers())
    assert decibels(mean_power(louder) / mean_power(samples)) == pytest.approx(6, abs=0.01)
    clipped = channel.Clipper(options_of(clipping={"decibels": [6.0, 6.0]}).clipping)(samples, random_numbers())
    peak = float(np.abs(samples).max())
    assert np.abs(clipped).max() == pytest.approx(peak * 10 ** (-6 / 20), rel=1e-3)
    below = np.abs(samples) < peak * 0.5
    assert np.allclose(clipped[below], samples[below], atol=1e-6) and clipped.dtype == np.float32


@pytest.mark.parametrize("length", [400, 401, 1999])
def test_every_step_bears_the_shortest_audio(cuts, length):
    short = load_audio(cuts[0])[:length]
    loud = options_of(**{name: {"probability": 1.0} for name in EVERYTHING})
    for kind in ("equalizer", "telephone", "mu-law", "gsm", "opus", "mp3"):
        loud.channel.kinds = [kind]
        changed = short
        for step in waveform.steps_of(loud, cuts):
            changed = step.change(changed, random_numbers())
        assert changed.shape == short.shape and np.isfinite(changed).all(), kind


# --- joined utterances and silence -----------------------------------------------------------------------------------


def arrangement(cuts: Sequence[Cut], options: Augment, seed: int = 1, max_seconds: float = 30.0, fits=None):
    return Arrangement(options, cuts, seed, max_seconds, fits or (lambda cut: True))


JOIN = {"probability": 1.0, "pause": [0.1, 0.3], "max_seconds": 5.0}


def test_joined_utterances_have_all_texts_and_all_audio(cuts):
    plan = EpochPlan(cuts, Data(batch_seconds=20.0), 1, arrange=arrangement(cuts, options_of(concatenate=JOIN)))
    by_id = {cut.id: cut for cut in cuts}
    drawn = [cut for update in plan.updates(0) for cut in update]
    assert len(drawn) == len(plan.recordings["es"]) * 3
    assert all(sum(cut.duration for cut in update) <= 20.0 for update in plan.updates(0))
    audio = WaveformAugmentation(options_of(concatenate=JOIN), cuts, 1).audio_of(0)
    numbers = set()
    for cut in drawn:
        parts = [track.cut for track in cut.tracks if not isinstance(track.cut, PaddingCut)]
        originals = [by_id.get(part.id, cut) for part in parts[1:]]
        texts = [original.supervisions[0].text for original in originals]
        assert cut.supervisions[0].text.endswith(" ".join(texts)) and cut.supervisions[0].text.count(texts[-1])
        assert {language_of(original) for original in originals} == {language_of(cut)}
        assert {original.supervisions[0].speaker for original in originals} == {cut.supervisions[0].speaker}
        assert published_text_of(cut).endswith(" ".join(published_text_of(original) for original in originals))
        pauses = [track.cut.duration for track in cut.tracks if isinstance(track.cut, PaddingCut)]
        assert len(pauses) == len(parts) - 1 and all(0.09 < pause <= 0.3 for pause in pauses)
        assert cut.duration == pytest.approx(sum(part.duration for part in parts) + sum(pauses), abs=1e-6)
        assert cut.duration <= 5.0
        numbers.add(len(parts))
    assert numbers == {2, 3}
    cut = drawn[0]
    samples = audio(cut)
    assert len(samples) == pytest.approx(cut.duration * SAMPLING_RATE, abs=4)
    last = load_audio(cut.tracks[-1].cut)
    assert np.array_equal(samples[-len(last) :], last)


def test_a_joined_utterance_that_does_not_fit_stays_alone(cuts, tokenizer):
    longest = max(len(transcript_tokens(cut, tokenizer)) for cut in cuts)
    options = options_of(concatenate=JOIN)

    def fits(cut: Cut) -> bool:
        return len(transcript_tokens(cut, tokenizer)) <= longest

    arrange = arrangement(cuts, options, fits=fits)
    tokens = [len(transcript_tokens(arrange(cut, 0), tokenizer)) for cut in cuts]
    assert max(tokens) <= longest
    none = arrangement(cuts, options, fits=lambda cut: False)
    assert [none(cut, 0) for cut in cuts] == cuts


def test_other_speakers_are_joined_only_where_that_is_allowed(cuts):
    mixed = [dataclasses.replace(cut) for cut in cuts]
    for number, cut in enumerate(mixed):
        cut.supervisions = [dataclasses.replace(cut.supervisions[0], speaker=f"speaker-{number // 2}")]  # two speeds
    apart = arrangement(mixed, options_of(concatenate=JOIN))
    assert [apart(cut, 0) for cut in mixed] == mixed
    together = arrangement(mixed, options_of(concatenate=JOIN | {"same_speaker": False}))
    assert all(len(together(cut, 0).tracks) > 1 and not together(cut, 0).supervisions[0].speaker for cut in mixed)


def test_languages_without_spaces_are_joined_without(cuts):
    parts = [dataclasses.replace(cut) for cut in cuts[:4:2]]
    for part, text in zip(parts, ("你好", "再见"), strict=True):
        part.supervisions = [dataclasses.replace(part.supervisions[0], text=text, language="zh", custom={})]
    joined = lay_out(parts, [0.0, 0.5, 0.0])
    assert joined.supervisions[0].text == "你好再见" and published_text_of(joined) is None


def test_silence_has_its_length_and_level(cuts):
    quiet = {"probability": 1.0, "seconds": [0.2, 0.7]}
    arrange = arrangement(cuts, options_of(silence=quiet))
    lengths = []
    for cut in cuts:
        first, middle, last = (track.cut for track in arrange(cut, 0).tracks)
        assert middle.id == cut.id and arrange(cut, 0).supervisions[0].text == cut.supervisions[0].text
        lengths += [first.duration, last.duration]
    assert 0.19 < min(lengths) < 0.25 and 0.65 < max(lengths) <= 0.7
    surrounded = arrange(cuts[0], 0)
    begin = surrounded.tracks[0].cut.num_samples
    speech = load_audio(cuts[0])
    zeros = WaveformAugmentation(options_of(silence=quiet | {"zeros": 1.0}), cuts, 1).audio_of(0)(surrounded)
    assert not zeros[:begin].any() and np.array_equal(zeros[begin : begin + len(speech)], speech)
    faint = quiet | {"zeros": 0.0, "noise_decibels": [-50.0, -50.0]}
    noisy = WaveformAugmentation(options_of(silence=faint), cuts, 1).audio_of(0)(surrounded)
    assert np.array_equal(noisy[begin : begin + len(speech)], speech)
    assert decibels(mean_power(noisy[:begin]) / active_power(speech)) == pytest.approx(-50, abs=2)


def test_silence_stays_within_the_longest_utterance(cuts):
    long = options_of(silence={"probability": 1.0, "seconds": [5.0, 5.0]})
    found = [arrangement(cuts, long, max_seconds=3.0)(cut, 0) for cut in cuts]
    assert all(2.9 < cut.duration <= 3.0 for cut in found)
    alone = [arrangement(cuts, long, max_seconds=cut.duration)(cut, 0) for cut in cuts]
    assert alone == cuts


def test_a_part_that_cannot_be_read_is_named(cuts):
    gone = dataclasses.replace(cuts[2], id="gone", duration=1e4)
    joined = lay_out([cuts[0], gone], [0.0, 0.5, 0.0])
    rejected: dict[str, str] = {}
    audio = WaveformAugmentation(options_of(concatenate=JOIN), cuts, 1).audio_of(0)
    assert load_usable([joined], CutFeatures(Features(), audio), rejected) == ([], [])
    assert list(rejected) == ["gone"]


# --- all together ----------------------------------------------------------------------------------------------------


def features_by_id(updates: list[list[Cut]], tokenizer, options: Augment, cuts: list[Cut], epoch: int = 0, **more):
    """(T, F) of every utterance, and its tokens."""
    audio = WaveformAugmentation(options, cuts, 1).audio_of(epoch)
    settings = {"augment": None, "seed": (1, epoch), "device_seconds": 600.0} | more
    workers = settings.pop("workers", 0)
    dataset = TrainingUpdates(updates, tokenizer, Features(), audio=audio, **settings)
    found = {}
    for update in DataLoader(dataset, batch_size=None, num_workers=workers):
        assert not update.rejected
        for batch in update.micro_batches:
            for row, name in enumerate(batch.ids):
                found[name] = batch.features[row, : batch.feature_lengths[row]]
    return found


def updates_of(cuts: list[Cut], options: Augment, epoch: int = 0) -> list[list[Cut]]:
    data = Data(batch_seconds=30.0, buckets=2)
    return EpochPlan(cuts, data, 1, arrange=arrangement(cuts, options)).updates(epoch)


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() and one
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_neither_processes_nor_workers_nor_order_matter(cuts, tokenizer):
    chosen = cuts[::6]
    options = options_of(**EVERYTHING)
    updates = updates_of(chosen, options)
    assert updates_of(chosen, options) == updates
    whole = features_by_id(updates, tokenizer, options, chosen)
    shares: dict = {}
    for rank in range(2):
        shares |= features_by_id(updates, tokenizer, options, chosen, rank=rank, world_size=2, workers=2)
    assert_same(shares, whole)
    backwards = [update[::-1] for update in updates[::-1]]
    assert_same(features_by_id(backwards, tokenizer, options, chosen, device_seconds=3.0), whole)


def test_epochs_and_parts_have_random_numbers_of_their_own(cuts, tokenizer):
    chosen = [cut.with_id(f"{cut.id}#0") for cut in cuts[:2]]
    room = options_of(reverberation={"probability": 1.0})
    first = features_by_id([chosen], tokenizer, room, cuts)
    second = features_by_id([chosen], tokenizer, room, cuts, epoch=1)
    assert all(not torch.equal(first[name], second[name]) for name in first)
    more = options_of(reverberation={"probability": 1.0}, channel={"probability": 1.0}, noise={"probability": 0.5})
    steps = [WaveformAugmentation(options, cuts, 1).steps[0] for options in (room, more)]
    random = [waveform.random_of(step.name, (1, 0), chosen[0]) for step in steps]
    audio = load_audio(cuts[0])
    assert np.array_equal(*[step.change(audio, numbers) for step, numbers in zip(steps, random, strict=True)])


def test_what_is_off_changes_no_bit(cuts, tokenizer):
    off = WaveformAugmentation(Augment(), cuts, 1)
    assert off.audio_of(0) is load_audio and not off.steps
    plain = TrainingUpdates([cuts[:4]], tokenizer, Features(), None, (1, 0), 600.0)[0]
    with_it = TrainingUpdates([cuts[:4]], tokenizer, Features(), None, (1, 0), 600.0, audio=off.audio_of(0))[0]
    assert torch.equal(plain.micro_batches[0].features, with_it.micro_batches[0].features)
    rare = options_of(**{name: {"probability": 1e-12} for name in EVERYTHING})
    assert updates_of(cuts, rare) == EpochPlan(cuts, Data(batch_seconds=30.0, buckets=2), 1).updates(0)
    audio = WaveformAugmentation(rare, cuts, 1).audio_of(0)
    assert np.array_equal(audio(cuts[0]), load_audio(cuts[0]))


def test_the_first_epochs_are_left_alone(cuts):
    late = options_of(start_epoch=2, **EVERYTHING)
    augmentation = WaveformAugmentation(late, cuts, 1)
    assert [augmentation.audio_of(epoch) is load_audio for epoch in range(4)] == [True, True, False, False]
    plan = EpochPlan(cuts, Data(batch_seconds=30.0), 1)
    arranged = EpochPlan(cuts, Data(batch_seconds=30.0), 1, arrange=arrangement(cuts, late))
    assert arranged.updates(1) == plan.updates(1) and arranged.updates(2) != plan.updates(2)


def test_every_language_still_has_as_many_recordings_in_each_update(cuts):
    data = Data(batch_seconds=20.0, every_language=True)
    plan = EpochPlan(cuts, data, 1, arrange=arrangement(cuts, options_of(concatenate=JOIN)))
    for update in plan.updates(0):
        assert {code: sum(language_of(cut) == code for cut in update) for code in ("el", "es", "ro")} == {
            code: plan.number for code in ("el", "es", "ro")
        }


@pytest.mark.parametrize("part", list(EVERYTHING))
def test_stored_features_cannot_be_augmented(prepared, part):
    with pytest.raises(ValueError, match=rf"data\.augment \({part}\) changes waveforms.*set features\.on_the_fly=true"):
        prepared.config(f"data.augment.{part}.probability=0.1")
    prepared.config(f"data.augment.{part}.probability=0.1", "features.on_the_fly=true")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"noise": {"snr": [5.0, 25.0]}}, ""),
        ({"noise": {"snr": [0.0, 9.0]}}, "noise.snr=[0.0, 9.0] has no effect without data.augment.noise.probability"),
        ({"silence": {"zeros": 0.1}}, "silence.zeros=0.1 has no effect without data.augment.silence.probability or"),
        ({"silence": {"zeros": 0.1}, "concatenate": {"probability": 0.1}}, ""),
        ({"noise": {"probability": 0.1, "path": "musan", "kinds": ["hum"]}}, "kinds=['hum'] has no effect with the"),
        ({"start_epoch": 3}, "start_epoch=3 has no effect where every"),
    ],
)
def test_options_without_effect_are_refused(written, problem):
    tree = {"name": "x", "features": {"on_the_fly": True}, "data": {"augment": written}}
    found = options_without_effect(Config.model_validate(tree), [("x.yaml", tree)])
    assert len(found) == bool(problem) and problem in "".join(found)


def test_a_range_is_in_order():
    with pytest.raises(ValueError, match="a range from 9 to 3: the lower end comes first"):
        BackgroundNoise(snr=[9.0, 3.0])
    with pytest.raises(ValueError):
        SurroundingSilence(seconds=[-1.0, 1.0])


# --- the mean of speech ----------------------------------------------------------------------------------------------


def shifts(cuts: list[Cut], mean, around) -> np.ndarray:
    """How far silence around each recording moves its mean, in deviations, over all bins."""
    log_mel = log_mel_of(Features())
    plain = [torch.from_numpy(log_mel(load_audio(cut))) for cut in cuts]
    deviation = torch.cat(plain).std(0)
    found = []
    for cut, features in zip(cuts, plain, strict=True):
        changed = torch.from_numpy(log_mel(around(load_audio(cut))))
        one, other = (mean(frames[None], torch.tensor([len(frames)])) for frames in (features, changed))
        found.append(((one - other).abs() / deviation).mean().item())
    return np.array(found)


def zeros_around(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, SAMPLING_RATE)


def noise_around(samples: np.ndarray) -> np.ndarray:
    level = np.sqrt(active_power(samples)) * 10 ** (-50 / 20)
    faint = level * random_numbers(zlib.crc32(samples.tobytes())).normal(size=len(samples) + 2 * SAMPLING_RATE)
    faint[SAMPLING_RATE:-SAMPLING_RATE] = samples
    return faint.astype(np.float32)


@pytest.mark.parametrize("around", [zeros_around, noise_around])
def test_silence_does_not_move_the_mean_of_speech(cuts, around):
    moved = shifts(cuts[::2], speech_mean, around)
    assert moved.mean() < 0.02, moved
    assert shifts(cuts[:6:2], utterance_mean, around).mean() > 0.5


def test_padding_does_not_move_the_mean_of_speech(cuts):
    log_mel = log_mel_of(Features())
    rows = [torch.from_numpy(log_mel(load_audio(cut))) for cut in cuts[:6:2]]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=50.0)
    found = speech_mean(padded, lengths)
    for row, mean in zip(rows, found, strict=True):
        assert torch.allclose(mean, speech_mean(row[None], torch.tensor([len(row)]))[0], atol=1e-5)
    silent = torch.full((1, 20, 4), -15.9)
    assert torch.allclose(speech_mean(silent, torch.tensor([20])), silent[:, :1])
