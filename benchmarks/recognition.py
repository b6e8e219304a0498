"""From WAV files to text: masr's freevoices model beside faster-whisper 1.2.1 with Whisper-base in int8.

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install -r benchmarks/requirements-peers.txt
    python benchmarks/recognition.py [--model freevoices] [--limit 20] [--threads 1]

Both read the same files of the freevoices test set with the same number of threads; the time is from file to text,
without loading the models. They take turns, a language each. Whisper is told the language and decodes greedily (mode
``greedy`` of whisper_base.py), one file after the other; masr is told nothing. masr is measured in two ways: file by
file (the headline, as the peer), and with the files of a language in one call, which batches them. In the macro CER
all languages weigh the same.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
import torch
from measure import ROOT, common_options, print_head, print_row, ratio_line, say_absent, thread_environment

import masr
from masr.corpora import freevoices
from masr.data.features import SAMPLING_RATE, load_audio
from masr.progress import track
from masr.score.errors import Utterance, macro_average
from masr.text.normalize import VERSION

PEER = "faster-whisper-base-int8"
Recordings = dict[str, list[tuple[Path, str, float]]]  # by language: file, reference, seconds of audio
Turn = Callable[[str, list[str]], tuple[float, list[str]]]  # language, files -> seconds, texts


def write_recordings(corpus: Path, folder: Path, limit: int) -> Recordings:
    """The first ``limit`` test recordings of every language as WAV files; those that are there are left."""
    recordings: Recordings = {}
    for cut in freevoices.read(corpus)["test"]:
        spoken = cut.supervisions[0]
        of_language = recordings.setdefault(spoken.language, [])
        if len(of_language) == limit:
            continue
        file = folder / f"{cut.id}.wav"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".partial")
            soundfile.write(unfinished, load_audio(cut), SAMPLING_RATE, subtype="PCM_16", format="WAV")
            unfinished.rename(file)
        of_language.append((file, spoken.text, cut.duration))
    return recordings


def masr_turns(model: str) -> dict[str, Turn]:
    recognizer = masr.load(model)

    def one_by_one(language: str, files: list[str]) -> tuple[float, list[str]]:
        began = time.perf_counter()
        texts = [recognizer.transcribe(file).text for file in files]
        return time.perf_counter() - began, texts

    def together(language: str, files: list[str]) -> tuple[float, list[str]]:
        began = time.perf_counter()
        texts = [transcript.text for transcript in recognizer.transcribe(files)]
        return time.perf_counter() - began, texts

    return {"masr, file by file": one_by_one, "masr, a language at once": together}


def peer_turn(python: Path, threads: int) -> Turn:
    """Starts the peer's process, which lives until its input ends with ours."""
    command = [str(python), str(Path(__file__).with_name("recognition_peer.py")), "--threads", str(threads)]
    environment = thread_environment(threads) | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    assert process.stdin and process.stdout

    def answer() -> dict[str, Any]:
        line = process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"{command[1]} ended with status {process.wait()}; see above")

    def transcribe(language: str, files: list[str]) -> tuple[float, list[str]]:
        process.stdin.write(json.dumps({"files": files, "language": language}) + "\n")
        process.stdin.flush()
        found = answer()
        return found["seconds"], found["texts"]

    answer()  # it is ready
    return transcribe


def compare(recordings: Recordings, turns: dict[str, Turn], repeats: int) -> dict[str, tuple[float, float]]:
    """Of each contender: seconds for all (each language the median of its turns), and macro CER."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    found: dict[str, list[Utterance]] = {name: [] for name in turns}
    for language, rows in track(list(recordings.items()), "recognition", len(recordings), unit="languages"):
        files = [str(file) for file, _, _ in rows]
        taken: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(repeats):
            for name, turn in turns.items():
                if not number:
                    turn(language, files[:1])  # warms up
                lasted, texts = turn(language, files)
                taken[name].append(lasted)
                if not number:
                    found[name] += [
                        Utterance(file, language, reference, text, duration, 0.0)
                        for file, (_, reference, duration), text in zip(files, rows, texts, strict=True)
                    ]
        for name, values in taken.items():
            seconds[name].append(statistics.median(values))
    return {name: (sum(seconds[name]), macro_average(found[name], "cer")) for name in turns}


def main() -> None:
    parser = common_options(__doc__, repeats=1)
    parser.add_argument("--model", default="freevoices", help="name of a shipped model, or a folder")
    parser.add_argument("--corpus", type=Path, default=ROOT / "egs/freevoices/corpus")
    parser.add_argument("--recordings", type=Path, default=ROOT / "build/benchmarks/freevoices-test")
    parser.add_argument("--limit", type=int, default=20, help="recordings of each language")
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".venv-peers/bin/python")
    arguments = parser.parse_args()
    with_peer = arguments.peers_python.exists()
    if arguments.shortest:
        with_peer, arguments.limit, arguments.repeats = False, 1, 1
    torch.set_num_threads(arguments.threads)
    try:
        turns = masr_turns(arguments.model)
    except FileNotFoundError as error:
        parser.error(f"--model: {error}")
    recordings = write_recordings(arguments.corpus, arguments.recordings, arguments.limit)
    if with_peer:
        turns[PEER] = peer_turn(arguments.peers_python, arguments.threads)
    else:
        say_absent(PEER, "recognition")

    results = compare(recordings, turns, arguments.repeats)
    audio = sum(duration for rows in recordings.values() for _, _, duration in rows)
    count = sum(map(len, recordings.values()))
    print_head(["recogniser", "threads", "recordings", "audio, s", "seconds", "x real time", "macro CER, %"])
    for name, (taken, error_rate) in results.items():
        cells = [f"{audio:.0f}", f"{taken:.2f}", f"{audio / taken:.1f}", f"{100 * error_rate:.2f}"]
        print_row([name, arguments.threads, count, *cells])
    print(f"{len(recordings)} languages, masr text normalisation {VERSION}; loading the models is not counted")
    if not with_peer:
        return
    ours, theirs = results["masr, file by file"], results[PEER]
    print(ratio_line("recognition", PEER, ours[0], theirs[0]))
    print(ratio_line("recognition-batched", PEER, results["masr, a language at once"][0], theirs[0]))
    print(ratio_line("recognition-macro-cer", PEER, ours[1], theirs[1]))


if __name__ == "__main__":
    main()
