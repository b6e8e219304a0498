"""masr: multilingual speech recognition in recipes.

import masr
masr.load("freevoices").transcribe("a.wav").text
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masr.recognize import SpeechRecognizer


def load(
    folder: str, device: str | None = None, precision: str = "fp32", base: str | None = None, **options: Any
) -> "SpeechRecognizer":
    """The recogniser of a model folder, a shipped model, or any Whisper as it comes, e.g. openai/whisper-small.

    ``options`` (methods, beam ...) override its ``decode:``; ``base`` is the folder, or the name on the hub, of the
    Whisper that an adapted model needs, where it is not found by itself.
    """
    from masr.recognize import SpeechRecognizer

    return SpeechRecognizer.load(folder, device, precision, base, **options)
