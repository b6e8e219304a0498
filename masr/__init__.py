"""masr: multilingual speech recognition in recipes.

import masr
masr.load("freevoices").transcribe("a.wav").text
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masr.recognize import SpeechRecognizer


def load(folder: str, device: str | None = None, **options: Any) -> "SpeechRecognizer":
    """The recogniser of a model folder or a shipped model; ``options`` (methods, beam ...) override its ``decode:``."""
    from masr.config import Decode
    from masr.recognize import SpeechRecognizer

    recognizer = SpeechRecognizer.load(folder, device)
    if not options:
        return recognizer
    return SpeechRecognizer(recognizer.model, Decode.model_validate(recognizer.options.model_dump() | options))
