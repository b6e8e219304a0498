"""The peer's side of ``recognition.py``: faster-whisper in an environment of its own, without torch.

Reads one JSON object a line from standard input, ``{"files": [...], "language": "cs"}``, and answers each with
``{"seconds": ..., "texts": [...]}``: the time from the first file to the last text. ``{"ready": true}`` comes first,
when the model is loaded.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from faster_whisper import WhisperModel
from peers import fetch_whisper_base
from whisper_base import MODES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, default="greedy")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    folder = fetch_whisper_base(Path.home() / ".cache" / "masr")
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=arguments.threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        began, texts = time.perf_counter(), []
        for file in task["files"]:
            segments, _ = model.transcribe(file, language=task["language"], vad_filter=False, **MODES[arguments.mode])
            texts.append("".join(segment.text for segment in segments))
        print(json.dumps({"seconds": time.perf_counter() - began, "texts": texts}), flush=True)


if __name__ == "__main__":
    main()
