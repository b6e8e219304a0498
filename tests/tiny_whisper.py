"""A Whisper of a few thousand random weights in the format of Hugging Face, whose tokens are bytes."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

SPECIAL = ["endoftext", "startoftranscript", "el", "es", "ro", "ru", "translate", "transcribe", "startofprev"]
SPECIAL += ["notimestamps", "0.00", "0.02"]


def write_tiny_whisper(folder: Path, seed: int = 0, positions: int = 48) -> Path:
    """Two layers of width 32; decoder with ``positions``."""
    tokens = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(sorted(tokens))}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    end = backend.token_to_id("<|endoftext|>")
    special = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "pad", "unk")}
    WhisperTokenizer(tokenizer_object=backend, **special).save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    start = backend.token_to_id("<|startoftranscript|>")
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=backend.get_vocab_size(), d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            max_target_positions=positions, decoder_start_token_id=start, eos_token_id=end, pad_token_id=end,
            bos_token_id=end, init_std=0.3,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(
        is_multilingual=True, decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, bos_token_id=end,
        lang_to_id={f"<|{code}|>": backend.token_to_id(f"<|{code}|>") for code in ("el", "es", "ro", "ru")},
        task_to_id={task: backend.token_to_id(f"<|{task}|>") for task in ("translate", "transcribe")},
        no_timestamps_token_id=backend.token_to_id("<|notimestamps|>"),
        suppress_tokens=[3, 4, *range(end + 1, end + len(SPECIAL))],
        begin_suppress_tokens=[backend.token_to_id("Ġ"), end], max_length=positions, return_timestamps=False,
        alignment_heads=[[0, 1], [1, 0]],
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder
