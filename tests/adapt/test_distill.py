"""A student of a tiny Whisper's experts."""

import copy

import pytest
import torch
from tiny_whisper import batch_of, build

from masr.adapt.distill import Teacher, distillation_losses
from masr.models.folder import save_model

EXPERTS = {"lora": {"rank": 2, "alpha": 4, "per_language": True}}
STUDENT = {"lora": {"rank": 4, "alpha": 4}}


@pytest.fixture
def taught(tiny_whisper, tmp_path):
    """A student and its teacher."""
    teacher, student = build(tiny_whisper, adapt=EXPERTS), build(tiny_whisper, adapt=STUDENT)
    torch.manual_seed(1)
    for parameter in teacher.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    student.teacher = Teacher(teacher, student, tmp_path)
    return student


def test_the_loss_is_the_divergence_of_two_distributions():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    for temperature in (1.0, 2.0):
        p, q = ((x / temperature).softmax(-1) for x in (teacher, student))
        expected = temperature**2 * (p * (p / q).log()).sum(-1)
        assert torch.allclose(distillation_losses(student, teacher, temperature), expected)
    assert torch.allclose(distillation_losses(teacher, teacher, 1.0), torch.zeros(5, dtype=torch.float64))


def test_each_utterance_is_taught_by_the_expert_of_its_language(taught, speech):
    together = taught.losses(taught.encode_views(batch := batch_of(taught, speech, [0, 1, 3]))[0], batch)
    assert set(together) == {"attention", "lid", "distillation"}
    for row, number in enumerate([0, 1, 3]):
        alone = batch_of(taught, speech, [number])
        single = taught.losses(taught.encode_views(alone)[0], alone)["distillation"]
        assert single.item() == pytest.approx(together["distillation"][row].item(), rel=1e-3)


def test_only_the_student_learns_and_the_base_is_there_once(taught, speech):
    before = copy.deepcopy(taught.teacher.model.state_dict())
    learning = [p for p in taught.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(learning, 1e-2), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = taught.objectives(batch_of(taught, speech, [0]))["distillation/es"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in taught.teacher.model.state_dict().items())
    own, theirs = taught.encoder.conv1.weight, taught.teacher.model.encoder.conv1.weight
    assert own.data_ptr() == theirs.data_ptr()
    assert not any("teacher" in name for name in taught.state_dict())


def test_in_half_of_the_precision(taught, speech):
    batch = batch_of(taught, speech, [0, 1])
    expected = taught.losses(taught.encode_views(batch)[0], batch)["distillation"]
    with torch.autocast("cpu", torch.bfloat16):
        found = taught.losses(taught.encode_views(batch)[0], batch)["distillation"]
    assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=0.1)


def test_the_share_of_the_teacher(taught):
    assert taught.objective_weights() == {"attention": 0.5, "distillation": 0.5, "lid": 0.5}


def test_a_teacher_knows_the_languages(tiny_whisper, tmp_path):
    teacher = build(tiny_whisper, languages=["el", "es"], adapt=EXPERTS)
    save_model(tmp_path, teacher)
    with pytest.raises(ValueError, match="does not know ro"):
        Teacher(teacher, build(tiny_whisper, adapt=STUDENT), tmp_path)
    teacher.config.features.mel_bins = 128
    with pytest.raises(ValueError, match="hears 128 mel bins, the student 80"):
        Teacher(teacher, build(tiny_whisper, languages=["el", "es"], adapt=STUDENT), tmp_path)
