import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from masr.data.batches import Batch, Tokens
from masr.train.evaluate import Evaluation
from masr.train.log import Meter, RunLog
from masr.train.trainer import Trainer


def batch(languages: list[str], tokens: list[int]) -> Batch:
    rows = len(languages)
    targets = {"transcript": Tokens(torch.zeros(rows, max(tokens), dtype=torch.long), torch.tensor(tokens))}
    return Batch(
        [str(i) for i in range(rows)], languages, torch.zeros(rows, 4, 2), torch.full((rows,), 4),
        torch.ones(rows, 2, dtype=torch.bool), targets,
    )  # fmt: skip


def losses(**values: float) -> dict[str, torch.Tensor]:
    return {name.replace("_", "/"): torch.tensor(value) for name, value in values.items()}


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def meter() -> Meter:
    """ctc: 6 + 10 for 4 + 4 tokens of es, 3 for 3 of nl; lid: 1 + 3 for 1 + 2 utterances of es, 1 for one of nl."""
    meter = Meter(["ctc", "lid"], ["es", "nl", "ro"])
    meter.add(losses(ctc_es=6.0, ctc_nl=3.0, lid_es=1.0, lid_nl=1.0), batch(["es", "nl"], [4, 3]))
    meter.add(losses(ctc_es=10.0, lid_es=3.0), batch(["es", "es"], [3, 1]))
    return meter


def test_means_by_hand(accelerator):
    means = meter().reduce(accelerator)
    assert means.keys() == {"ctc/es", "ctc/nl", "lid/es", "lid/nl", "ctc", "lid"}
    expected = {"ctc/es": 2.0, "ctc/nl": 1.0, "lid/es": 4 / 3, "lid/nl": 1.0, "ctc": 19 / 11, "lid": 5 / 4}
    assert means == pytest.approx(expected)


def test_reduction_starts_anew(accelerator):
    used = meter()
    used.reduce(accelerator)
    used.add(losses(ctc_es=5.0), batch(["es"], [1]))
    assert used.reduce(accelerator)["ctc/es"] == 5.0


def test_state_carries_the_sums(accelerator):
    state = json.loads(json.dumps(meter().state_dict()))
    resumed = Meter(["ctc", "lid"], ["es", "nl", "ro"])
    resumed.load_state_dict(state)
    assert resumed.reduce(accelerator) == meter().reduce(accelerator)


def lines(folder: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["kind"], row["update"]) for row in rows]


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path):
    log = RunLog(tmp_path, resumed_from=0)
    for update in (1, 2, 3):
        log.write("train", update, {"loss": 0.5})
    log.write("dev", 2, {"macro_cer": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "update": 4, "lo')  # killed while writing
    again = RunLog(tmp_path, resumed_from=2)
    assert lines(tmp_path) == [("train", 1), ("train", 2), ("dev", 2)]
    again.write("train", 3, {"loss": 0.25})
    assert lines(tmp_path)[-1] == ("train", 3)


def test_a_run_from_the_beginning_starts_an_empty_log(tmp_path: Path):
    RunLog(tmp_path, resumed_from=0).write("train", 1, {"loss": 0.5})
    RunLog(tmp_path, resumed_from=0)
    assert lines(tmp_path) == []


def test_values_and_text_are_for_tensorboard_too(tmp_path: Path):
    log = RunLog(tmp_path, resumed_from=0)
    log.write("train", 1, {"loss": 0.5})
    log.text("dev/examples", 1, "| a |")
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"dev/examples" in content


def test_the_logged_attention_loss_is_the_one_that_is_minimised(accelerator):
    """It has one term more a sentence than it has tokens: the end."""
    used = Meter(["attention"], ["es"])
    used.add(losses(attention_es=12.0), batch(["es", "es"], [1, 3]))
    assert used.reduce(accelerator)["attention"] == pytest.approx(12.0 / 6)


def test_examples_of_dev_are_text_and_not_markup(tmp_path: Path):
    """TensorBoard shows them as a table in Markdown."""
    shown: list[str] = []
    log = SimpleNamespace(write=lambda *_: None, text=lambda _name, _update, markdown: shown.append(markdown))
    trainer = SimpleNamespace(progress={"update": 1, "best_cer": 0.5}, log=log)
    Trainer._report(trainer, Evaluation({"cs": 0.5}, [("cs", "a | <script>b", "[x](y)\n\x1b[31m`c`")]))
    rows = shown[0].splitlines()
    assert rows == [
        "| | reference | hypothesis |",
        "|-|-|-|",
        r"| cs | a \| &lt;script&gt;b | \[x\](y)\\x0a\\x1b\[31m\`c\` |",
    ]


def test_a_damaged_log_does_not_stop_a_run(tmp_path: Path):
    """Lines that are not UTF-8 or not JSON are dropped, as one that was cut off."""
    good = json.dumps({"kind": "train", "update": 1})
    lines = [good.encode(), b"\xff\xfe garbage", b"[1]", b"5", b'{"update": "x"}', b'{"update": null}', b"{}"]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    RunLog(tmp_path, 1)
    assert (tmp_path / "log.jsonl").read_text() == f"{good}\n"
