"""U tokens, T frames, H heads."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from transformers.generation.utils import GenerateEncoderDecoderOutput
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from masr.decode.cross_attention import attention_align, median_filter, warp

STEPS = ((0, 1), (1, 0), (1, 1))


def paths(rows: int, frames: int) -> list[list[tuple[int, int]]]:
    """All from the first cell to the last."""
    if (rows, frames) == (1, 1):
        return [[(0, 0)]]
    before = [(rows - down, frames - on) for down, on in STEPS if rows > down and frames > on]
    return [[*path, (rows - 1, frames - 1)] for size in before for path in paths(*size)]


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (4, 4)])
def test_the_path_is_the_cheapest_of_all(rows, frames):
    for seed in range(10):
        costs = np.random.default_rng(seed).normal(size=(rows, frames))
        best = min(paths(rows, frames), key=lambda path: sum(costs[cell] for cell in path))
        assert warp(costs) == [min(frame for row, frame in best if row == of) for of in range(rows)]


@pytest.mark.parametrize("frames", [1, 3, 4, 9])
def test_medians_at_both_ends_are_of_what_is_reflected(frames):
    values = torch.randn(2, 3, frames)
    expected = ndimage.median_filter(values.numpy(), (1, 1, 7), mode="mirror") if frames > 3 else values.numpy()
    assert np.array_equal(median_filter(values, 7).numpy(), expected)


@pytest.mark.parametrize(("tokens", "frames", "width"), [(6, 50, 7), (20, 90, 5), (12, 5, 7), (2, 3, 7)])
def test_tokens_begin_where_transformers_has_them(tokens, frames, width):
    """Whose path can be a dearer one where beginnings of paths cost the same; not so in these."""
    torch.manual_seed(tokens)
    scores = torch.randn(3, tokens, frames)
    whisper = SimpleNamespace(config=SimpleNamespace(decoder_layers=1, median_filter_width=width))
    attentions = ((scores.softmax(-1)[None],),)
    outputs = GenerateEncoderDecoderOutput(sequences=torch.zeros(1, tokens), cross_attentions=attentions)
    heads = [(0, 0), (0, 1), (0, 2)]
    times = WhisperGenerationMixin._extract_token_timestamps(whisper, outputs, heads, num_input_ids=0)[0, :-1]
    assert [start for start, _ in attention_align(scores, width)] == (times / 0.02).round().int().tolist()


def test_a_token_ends_where_the_next_begins_and_lasts_a_frame_at_least():
    torch.manual_seed(0)
    for tokens, frames in itertools.product((1, 2, 5, 30), (1, 2, 10)):
        spans = attention_align(5 * torch.randn(2, tokens, frames), 7)
        assert spans[0][0] == 0 and spans[-1][1] == frames and all(start < end for start, end in spans)
        assert all(end == max(after, start + 1) for (start, end), (after, _) in itertools.pairwise(spans))


def test_frames_to_which_nothing_attends_do_no_harm():
    scores = torch.full((1, 2, 6), -1e4)
    scores[0, 0, 1] = scores[0, 1, 4] = 0.0
    (_, end), (start, _) = attention_align(scores, 1)
    assert 2 <= end == start <= 4
