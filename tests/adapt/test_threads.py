"""A recogniser that many threads use at once: what a call needs travels with the call."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_whisper import batch_of, build, moved, search, write_tiny_whisper

from masr.data.batches import Batch

THREADS, CALLS = 8, 20
EXPERTS = {"rank": 2, "alpha": 4, "per_language": True}
ADAPTED = {
    "routed experts": {"lora": EXPERTS, "routing": "arrow"},
    "prompts, vectors": {"lora": EXPERTS, "prompts": {"length": 2, "languages": "add"}, "language_codes": True},
}


@pytest.mark.parametrize("kind", ADAPTED)
@torch.no_grad()
def test_calls_in_several_languages_at_once_are_as_one_after_another(tmp_path, speech, kind):
    folder = write_tiny_whisper(tmp_path, positions=10)  # a few tokens are enough to see whose experts wrote them
    model = moved(build(folder, adapt=ADAPTED[kind]))
    batches = [allowing(model, speech, rows, code) for rows in ([1], [3, 1]) for code in (*model.languages, None)]
    expected = [frames_and_texts(model, batch) for batch in batches]
    texts = [text for _, text in expected]
    assert any(text != texts[0] for text in texts[1:4]), "languages make a difference"

    def calls(thread: int) -> list[tuple[int, bool]]:
        chosen = [(thread + call) % len(batches) for call in range(CALLS)]
        return [(number, same(frames_and_texts(model, batches[number]), expected[number])) for number in chosen]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(calls, range(THREADS)))
    wrong = [number for thread in found for number, right in thread if not right]
    assert not wrong and sum(len(thread) for thread in found) == THREADS * CALLS


def allowing(model, speech, rows: list[int], code: str | None) -> Batch:
    """Some utterances in one language, or in any."""
    batch = batch_of(model, speech, rows)
    batch.allowed_languages = torch.tensor([[code in (known, None) for known in model.languages]] * len(rows))
    return batch


@torch.no_grad()
def frames_and_texts(model, batch: Batch) -> tuple[torch.Tensor, list[list[int]]]:
    return model.encode(batch.features, batch.feature_lengths, batch.allowed_languages).frames, search(model, batch, 1)


def same(one: tuple[torch.Tensor, list], other: tuple[torch.Tensor, list]) -> bool:
    return torch.equal(one[0], other[0]) and one[1] == other[1]
