"""masr: multilingual speech recognition in recipes.

import masr
masr.load("freevoices").transcribe("a.wav").text
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masr.recognize import SpeechRecognizer


def load(folder: str, device: str | None = None, **options: Any) -> "SpeechRecognizer":
    """The recogniser of a model folder or of a shipped model; ``options`` as under ``decode:`` (methods, beam ...)."""
    from masr.config import Decode
    from masr.recognize import SpeechRecognizer

    return SpeechRecognizer.load(folder, device, Decode(**options) if options else None)
