"""masr: multilingual speech recognition in recipes.

import masr
masr.load("freevoices").transcribe("a.wav").text
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masr.recognize import SpeechRecognizer


def load(folder: str, device: str | None = None, precision: str = "fp32", **options: Any) -> "SpeechRecognizer":
    """The recogniser of a model folder or a shipped model; ``options`` (methods, beam ...) override its ``decode:``."""
    from masr.recognize import SpeechRecognizer

    return SpeechRecognizer.load(folder, device, precision, **options)
