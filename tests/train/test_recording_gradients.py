"""Gradients of single recordings, on the miniature corpus, beside plain backward passes."""

import shutil

import pytest
import torch

from masr.config_files import load_config
from masr.data.batches import Counts, CutFeatures, collate
from masr.data.sampling import language_of, recording_name
from masr.models.folder import build_model
from masr.stages import vocab
from masr.stages.features import load_cuts
from masr.stages.vocab import load_tokenizer
from masr.train.recording_gradients import (
    GradientStore,
    RecordingGradients,
    collate_group,
    draw_groups,
    draw_recordings,
)

OPTIONS = [
    "vocab.translation={into: en, kind: char}", "model.ctc.intermediate_layers=[1]",
    "model.translation={weight: 0.5, layers: 1, width: 16, heads: 2, feedforward: 16}",
    "model.self_supervised={kind: cpc, weight: 2.0, context: 0.3, future: 0.2}",
]  # fmt: skip


@pytest.fixture
def config(prepared, workdir):
    shutil.copytree(prepared.folder / "data", workdir / "data")
    made = load_config(prepared.conf, [f"data_dir={workdir}/data", *OPTIONS])
    vocab.run(made)
    return made


def explicit(model, loss) -> torch.Tensor:
    """The gradient of the whole encoder."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    return torch.cat([p.grad.flatten() for p in model.encoder.parameters()]).double()


def test_products_are_those_of_explicit_gradients(config):
    """asr and st of four recordings and cpc of two groups; in float16 as by backward passes in float32."""
    torch.manual_seed(0)
    model = build_model(config, load_tokenizer(config))
    load, cuts = CutFeatures(config.features), load_cuts(config, "dev")
    tokens = Counts(20, 2, 40, 2)
    measure = RecordingGradients(model, dict.fromkeys(model.languages, tokens))
    store = GradientStore(measure.sizes, 10)
    names, expected = [], []
    for cut in cuts[:4]:
        code, batch = language_of(cut), collate([load(cut)], [cut], model.tokenizer)
        for name, gradient in measure(batch):
            assert store.add(gradient)
            names.append(name)
        losses = model.objectives(batch)
        ctc = 0.7 * losses[f"ctc/{code}"] + 0.3 * losses[f"intermediate-ctc/{code}"]
        expected += [explicit(model, ctc / 20), explicit(model, 0.5 * losses[f"st/{code}"] / 42)]
    for group in (cuts[:3], cuts[3:6]):
        batch = collate_group([load(cut) for cut in group], group, model.languages, seed=1)
        [(name, gradient)] = measure(batch)
        assert store.add(gradient)
        names.append(name)
        expected.append(explicit(model, 2.0 * sum(model.objectives(batch).values()) / 3))
    assert names == [f"{task}/{language_of(cut)}" for cut in cuts[:4] for task in ("asr", "st")] + ["cpc", "cpc"]
    exact = torch.stack(expected)
    norms = exact.norm(dim=1)
    assert (norms > 0).all()
    error = (store.gramians().sum(0) - exact @ exact.T) / norms / norms[:, None]
    assert error.abs().max() < 2e-4
    assert store.layers == list(measure.sizes) and sum(measure.sizes.values()) == exact.shape[1]


def test_a_gradient_that_is_not_finite_is_not_kept():
    store = GradientStore({"a": 2, "b": 1}, 3)
    assert not store.add([torch.tensor([1.0, float("nan")]), torch.ones(1)])
    assert store.add([torch.tensor([3e-9, 4e-9]), torch.zeros(1)]), "far below float16"
    assert store.add([torch.tensor([3e9, 4e9]), torch.ones(1)])
    found = store.gramians()
    assert torch.allclose(found[0], torch.tensor([[25e-18, 25.0], [25.0, 25e18]], dtype=torch.float64), rtol=1e-3)
    assert found[1].tolist() == [[0, 0], [0, 1]]


def test_what_does_not_fit_into_memory_is_refused():
    with pytest.raises(ValueError, match=r"1000000 gradients of 1000.0 M parameters need .* choose fewer --recordings"):
        GradientStore({"a": 10**9}, 10**6)


def test_recordings_are_drawn_once_each(config):
    cuts = load_cuts(config, "train")
    drawn = draw_recordings(cuts, 5, seed=1)
    assert {code: len(each) for code, each in drawn.items()} == {"el": 5, "es": 5, "ro": 5}
    each = [cut for of_language in drawn.values() for cut in of_language]
    assert len({recording_name(cut) for cut in each}) == 15 and all(cut.id == recording_name(cut) for cut in each)
    assert drawn == draw_recordings(cuts[::-1], 5, seed=1) != draw_recordings(cuts, 5, seed=2)


def test_groups_are_smaller_where_recordings_are_few(config):
    cuts = load_cuts(config, "train")  # 36 recordings
    sizes = lambda *more: [len(group) for group in draw_groups(cuts, *more)]  # noqa: E731
    assert sizes(6, 5, 1) == [5] * 6 and sizes(64, 5, 1) == [5] * 7
    assert sizes(64, 16, 1) == [9] * 4, "four groups at least"
    assert sizes(10, 1, 1) == [1] * 10
    assert draw_groups(cuts[:7], 64, 16, 1) == [], "of one recording there is nothing to compare"
    names = [recording_name(cut) for group in draw_groups(cuts, 64, 5, 1) for cut in group]
    assert len(set(names)) == len(names) == 35
