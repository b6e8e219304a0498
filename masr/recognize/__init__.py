"""The inference API: audio of any kind -> segments of speech -> transcripts with times and confidences."""

from masr.recognize.recognizer import SpeechRecognizer
from masr.recognize.transcript import Segment, Transcript, Word

__all__ = ["Segment", "SpeechRecognizer", "Transcript", "Word"]
