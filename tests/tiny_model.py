"""A model small enough for every test."""

MODEL = {
    "encoder": {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "kernel": 3, "subsampling_channels": 4},
    "attention_decoder": {"weight": 0.3, "layers": 1, "width": 16, "heads": 2, "feedforward": 16},
}
DECODE = {"methods": ["joint-beam"], "beam": 2, "segments": {"voice_activity": False}}
"""Random weights need not hear speech."""
