"""A Whisper of a few thousand random weights in the format of Hugging Face, whose tokens are bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from transformers import WhisperTokenizer as TheirTokenizer

from masr.config import Config, Decode, Features
from masr.data.batches import Batch, Tokens
from masr.data.features import log_mel_of
from masr.decode.search import attention_search
from masr.decode.utterances import Utterances, utterances_of
from masr.models.whisper import WhisperRecognizer, pretrained_whisper
from masr.text.whisper_tokenizer import WhisperTokenizer

LANGUAGES = ["el", "es", "ro"]
UTTERANCES = [("es", "uno dos", 1.3), ("el", "τρία", 0.6), ("es", "", 2.0), ("ro", "trei și", 0.9)]
"""Language, text, seconds."""
KNOWN = ("el", "es", "ro", "ru")
"""Languages of which it has tokens."""

CONF = """\
data_dir: data
corpus: {{path: {corpus}}}
features: {{kind: whisper, on_the_fly: {on_the_fly}, speed_perturbation: [1.0], jobs: 1}}
vocab: {{kind: whisper}}
data: {{batch_seconds: 6, buckets: 2, workers: 0, dev_prompt: oracle}}
model:
  pretrained: whisper
  ctc: {{weight: 0.0}}
  attention_decoder: {{weight: 1.0}}
  language_classifier: {{weight: 0.1}}
train: {{updates: 4, optimizer: adamw, warmup: 2, validate_every: 2, log_every: 1, threads: 1}}
decode: {{methods: [attention-beam], beam: 2, prompts: [all, oracle]}}
"""
"""Config of a recipe on the tiny corpus, with the Whisper in the folder ``whisper``."""


def write_tiny_whisper(
    folder: Path, seed: int = 0, positions: int = 48, known: Sequence[str] = KNOWN, no_speech: bool = False,
    times: int = 2,
) -> Path:  # fmt: skip
    """Two layers of width 32; decoder with ``positions``; with a token for no speech, and for so many times."""
    special_tokens = ["endoftext", "startoftranscript", *known, "translate", "transcribe", "startofprev"]
    special_tokens += ["nospeech"] if no_speech else []
    special_tokens += ["notimestamps", *(f"{0.02 * number:.2f}" for number in range(times))]
    tokens = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(sorted(tokens))}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special_tokens])
    end = backend.token_to_id("<|endoftext|>")
    special = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "pad", "unk")}
    TheirTokenizer(tokenizer_object=backend, **special).save_pretrained(folder)
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
        lang_to_id={f"<|{code}|>": backend.token_to_id(f"<|{code}|>") for code in known},
        task_to_id={task: backend.token_to_id(f"<|{task}|>") for task in ("translate", "transcribe")},
        no_timestamps_token_id=backend.token_to_id("<|notimestamps|>"),
        suppress_tokens=[3, 4, *range(end + 1, end + len(special_tokens))],
        begin_suppress_tokens=[backend.token_to_id("Ġ"), end], max_length=positions, return_timestamps=False,
        alignment_heads=[[0, 1], [1, 0]],
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def config_of(folder: Path, **sections) -> Config:
    given = {
        "name": "test", "features": {"kind": "whisper"}, "vocab": {"kind": "whisper"},
        "model": {
            "pretrained": str(folder), "ctc": {"weight": 0.0}, "language_classifier": {"weight": 0.5},
            "attention_decoder": {"weight": 1.0, "label_smoothing": 0.0}, **sections.pop("model", {}),
        },
    }  # fmt: skip
    return Config.model_validate(given | sections)


def build(folder: Path, languages: Sequence[str] = LANGUAGES, **model) -> WhisperRecognizer:
    """A recogniser with options of ``model``, ready to recognise."""
    torch.manual_seed(0)
    tokenizer = WhisperTokenizer.of_pretrained(str(folder), list(languages), {})
    config = config_of(folder, model=model)
    return WhisperRecognizer(config, tokenizer, None, pretrained_whisper(str(folder))).eval()


def moved(model: WhisperRecognizer) -> WhisperRecognizer:
    """With all that learns away from where it began."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def batch_of(model: WhisperRecognizer, audio: list[np.ndarray], rows: list[int]) -> Batch:
    log_mel = log_mel_of(Features(kind="whisper"))
    features = [torch.from_numpy(log_mel(audio[row])) for row in rows]
    texts = [model.tokenizer.encode(UTTERANCES[row][1], UTTERANCES[row][0]) for row in rows]
    ids = [torch.tensor(text, dtype=torch.long) for text in texts]
    allowed = torch.tensor([[code == UTTERANCES[row][0] for code in model.languages] for row in rows])
    return Batch(
        ids=[str(row) for row in rows], languages=[UTTERANCES[row][0] for row in rows],
        features=pad_sequence(features, batch_first=True), feature_lengths=torch.tensor([len(f) for f in features]),
        allowed_languages=allowed,
        targets={"transcript": Tokens(pad_sequence(ids, batch_first=True), torch.tensor([len(i) for i in ids]))},
    )  # fmt: skip


def heard(model: WhisperRecognizer, batch: Batch) -> Utterances:
    with torch.no_grad():
        encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
        return utterances_of(model, encoded, batch.allowed_languages)


def search(model: WhisperRecognizer, batch: Batch, beam: int) -> list[list[int]]:
    return [nbest[0].tokens for nbest in attention_search(model, heard(model, batch), Decode(beam=beam))]
