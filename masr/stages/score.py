"""Stage 5: error rates with confidence intervals and reports of every decoded split and method."""

import json
from pathlib import Path

from masr.config import Config
from masr.decode.search import METHODS, result_names
from masr.files import file_hash, read_json, reading
from masr.progress import clock, say
from masr.score import translation
from masr.score.intervals import explained
from masr.score.plots import percent
from masr.score.report import VERSION, Metrics, main_table, write_report
from masr.score.translation import write_translation_report
from masr.stages.output import StageOutput, seal_of
from masr.stages.train import experiment_folder

AGAIN = "`masr score --force` makes it again"
REMOVE = "remove it: it only describes the run"


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes ``exp/<name>/score/<method>/<split>/`` with report.md, report.html, metrics.json, alignments.txt."""
    folder = experiment_folder(config)
    names = result_names(config.decode)
    for name in names:
        seal_of(folder / "decode" / name, "decode")
    files = [folder / "decode" / name / f"{split}.jsonl" for name in names for split in config.corpus.test]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{', '.join(missing)} is missing: run `masr decode` with these decode and corpus options"
        )
    inputs = {"decoded": {str(file): file_hash(file) for file in files}, "normalization": VERSION}
    output = StageOutput("score", folder / "score", inputs=inputs)
    with output.writing(force, verify=verify) as needed:
        for file in files if needed else []:
            target, details = output.folder / file.parent.name / file.stem, _details(folder, config)
            if _translates(file):
                write_translation_report(file, target, details=details)
            else:
                pictures = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("soup/*.svg"))}
                write_report(file, target, details=details, training=pictures)
    _summary(output.folder, files)


def _summary(folder: Path, files: list[Path]) -> None:
    """The headline method's table, and one line for each method."""
    results = [(f, read_json(folder / f.parent.name / f.stem / "metrics.json", AGAIN)) for f in files]
    say(translation.main_table(results[0][1]) if _translates(results[0][0]) else main_table(results[0][1]))
    for sentence in explained(results[0][1]["languages"]):
        say(sentence)
    for file, metrics in results:
        averages = translation.averages(metrics) if _translates(file) else _averages(metrics)
        say(f"score: {file.stem}: {file.parent.name}: {averages}")
    say(f"score: reports in {folder}/<method>/<split>/report.{'md' if _translates(files[0]) else 'html'}")


def _translates(file: Path) -> bool:
    """Whether a decode file holds translations."""
    return METHODS[file.parent.name.partition("@")[0]].translates


def _averages(metrics: Metrics) -> str:
    cer, wer = metrics["macro"]["cer"]["rate"], metrics["macro"]["wer"]["rate"]
    return f"macro CER {percent(cer)}, macro WER {percent(wer)}, real-time factor {metrics['real_time_factor']:.4f}"


def _details(folder: Path, config: Config) -> dict[str, str]:
    """What stands above a report: how the model was made, and where."""
    path = folder / "environment.json"
    environment = read_json(path, REMOVE) if path.exists() else {}
    with reading(path, REMOVE):
        packages = ", ".join(f"{name} {number}" for name, number in environment.get("packages", {}).items())
    last = _last_evaluation(folder)
    return {
        "experiment": config.name, "trained by": environment.get("command", "unknown"),
        "commit": environment.get("commit") or "unknown", "machine": environment.get("machine", "unknown"),
        "processes x threads": f"{environment.get('processes', '?')} x {environment.get('threads', '?')}",
        "packages": packages, **last,
    }  # fmt: skip


def _last_evaluation(folder: Path) -> dict[str, str]:
    path = folder / "training.json"
    if not path.exists():
        return {}
    with reading(path, REMOVE):
        training = json.loads(path.read_text())
        return {
            "parameters": f"{training['parameters'] / 1e6:.2f} M", "training time": clock(training["train_seconds"]),
            "audio trained on": f"{training['audio_seconds'] / 3600:.1f} h",
            "best dev CER": percent(training["best_cer"]),
        }  # fmt: skip
