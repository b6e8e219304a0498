"""Whisper of base size on clips' own length and on 30 s, beside transformers and peft on the same recordings.

    .venv/bin/python benchmarks/whisper.py [--threads 1] [--repeats 3]

Weights are random, so that nothing is downloaded; recordings are of freevoices. A training step is forward, loss,
backward and AdamW of LoRA, rank 32, in all linear layers of Whisper's blocks. Decoding goes from features to 20 tokens:
random weights do not end sooner. Features are computed before; the peer gets them filled up to 30 s, as it must. With
``context=full`` masr computes what the peer does, losses and transcripts are compared. Experts are LoRA of each
language: one batch of four languages beside a batch of each of them, in masr.

B recordings, T frames, F mel bins, U tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from measure import ROOT, common_options, print_head, print_row, ratio_line, seconds_in_turn
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    logging,
)

from masr.config import Config, Features
from masr.corpora import freevoices
from masr.data.batches import Batch, Tokens
from masr.data.features import SAMPLING_RATE, load_audio, log_mel_of
from masr.decode.attention_beam import attention_beam
from masr.models.whisper import WhisperRecognizer
from masr.text.whisper_tokenizer import WhisperTokenizer

LANGUAGES = ["cs", "es", "nl", "ru"]
MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
RANK, ALPHA, LEARNING_RATE = 32, 64, 1e-4
VOCABULARY, END = 51865, 50257
SPECIAL = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startofprev", "notimestamps"]
CONTEXTS = ["clip", "full"]
SECONDS = 3.0
NEW_TOKENS, BEAM = 20, 5
Runs = dict[str, Callable[[], Any]]


def tokenizer_of_base_size() -> WhisperTokenizer:
    """Bytes, tokens that no text has, and those of languages and tasks, as many as in Whisper."""
    known = sorted(pre_tokenizers.ByteLevel.alphabet())
    known += [f"unused {number}" for number in range(len(known), END)]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(known)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [*SPECIAL, *(f"unused special {number}" for number in range(VOCABULARY - END - len(SPECIAL)))]
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special])
    return WhisperTokenizer(LANGUAGES, {}, backend)


def base_model(tokenizer: WhisperTokenizer) -> Any:
    """The same random Whisper of base size every time."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
            decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, bos_token_id=END,
            decoder_start_token_id=tokenizer.start, eos_token_id=END, pad_token_id=END,
        )
    )  # fmt: skip
    tasks = {task: tokenizer.special(task) for task in ("translate", "transcribe")}
    model.generation_config = GenerationConfig(
        is_multilingual=True, decoder_start_token_id=tokenizer.start, eos_token_id=END, pad_token_id=END,
        lang_to_id={f"<|{code}|>": tokenizer.special(code) for code in LANGUAGES}, task_to_id=tasks,
        no_timestamps_token_id=tokenizer.special("notimestamps"), suppress_tokens=[*range(END + 1, VOCABULARY)],
        begin_suppress_tokens=[END], max_length=448, return_timestamps=False,
    )  # fmt: skip
    return model


@dataclass
class Recording:
    language: str
    audio: np.ndarray
    text: str


def recordings(of_each: int, languages: Sequence[str] = LANGUAGES) -> list[Recording]:
    """Test recordings of about three seconds of every language, nearest first; languages take turns."""
    cuts = freevoices.read(ROOT / "egs/freevoices/corpus")["test"]
    chosen = []
    for code in languages:
        spoken = [cut for cut in cuts if cut.supervisions[0].language == code]
        nearest = sorted(spoken, key=lambda cut: abs(cut.duration - SECONDS))[:of_each]
        chosen.append([Recording(code, load_audio(cut), cut.supervisions[0].text) for cut in nearest])
    return [recording for number in zip(*chosen, strict=True) for recording in number]


def batch_of(chosen: Sequence[Recording], tokenizer: WhisperTokenizer) -> Batch:
    log_mel = log_mel_of(Features(kind="whisper"))
    features = [torch.from_numpy(log_mel(recording.audio)) for recording in chosen]
    ids = [torch.tensor(tokenizer.encode(recording.text, recording.language)) for recording in chosen]
    return Batch(
        ids=[str(number) for number in range(len(chosen))], languages=[recording.language for recording in chosen],
        features=pad_sequence(features, batch_first=True), feature_lengths=torch.tensor([len(f) for f in features]),
        allowed_languages=torch.tensor([[code == recording.language for code in LANGUAGES] for recording in chosen]),
        targets={"transcript": Tokens(pad_sequence(ids, batch_first=True), torch.tensor([len(i) for i in ids]))},
    )  # fmt: skip


def masr_model(tokenizer: WhisperTokenizer, context: str, lora: bool, per_language: bool = False) -> WhisperRecognizer:
    options = {"rank": RANK if lora else 0, "alpha": ALPHA, "modules": MODULES, "per_language": per_language}
    config = Config.model_validate({
        "name": "benchmark", "features": {"kind": "whisper"}, "vocab": {"kind": "whisper"},
        "model": {
            "pretrained": "random", "ctc": {"weight": 0.0}, "whisper": {"context": context}, "adapt": {"lora": options},
            "attention_decoder": {"weight": 1.0, "label_smoothing": 0.0}, "language_classifier": {"weight": 0.0},
        },
    })  # fmt: skip
    return WhisperRecognizer(config, tokenizer, None, base_model(tokenizer)).train(lora)


# --- training --------------------------------------------------------------------------------------------------------


def step_of(model: Any, losses: Callable[[], Iterable[Tensor]]) -> Callable[[], float]:
    """An update on ``losses``, one backward after another; their sum."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)

    def step() -> float:
        total = 0.0
        for loss in losses():
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def masr_step(model: WhisperRecognizer, batches: Sequence[Batch]) -> Callable[[], float]:
    """On the mean over all tokens and ends of batches that are computed one after the other."""
    number = sum(int((batch.targets["transcript"].lengths + 1).sum()) for batch in batches)
    return step_of(
        model, lambda: (torch.stack([*model.objectives(batch).values()]).sum() / number for batch in batches)
    )


def peer_step(tokenizer: WhisperTokenizer, chosen: Sequence[Recording]) -> Callable[[], float]:
    """What people write with transformers and peft."""
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES)
    model = get_peft_model(base_model(tokenizer), lora).train()
    texts = [tokenizer.encode(recording.text, recording.language) for recording in chosen]
    beginnings = [[tokenizer.start, tokenizer.special(r.language), *tokenizer.task] for r in chosen]
    given = [torch.tensor([*first, *text]) for first, text in zip(beginnings, texts, strict=True)]
    labels = [torch.tensor([-100, -100, -100, *text, END]) for text in texts]
    inputs = {
        "input_features": peer_features(chosen), "decoder_input_ids": pad_sequence(given, True, END),
        "labels": pad_sequence(labels, True, -100),
    }  # fmt: skip
    return step_of(model, lambda: [model(**inputs).loss])


def peer_features(chosen: Sequence[Recording]) -> Tensor:
    """(B, F, T) of 30 s."""
    audio = [recording.audio for recording in chosen]
    return WhisperFeatureExtractor()(audio, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]


# --- decoding --------------------------------------------------------------------------------------------------------


def masr_search(model: WhisperRecognizer, batches: Sequence[Batch], beam: int) -> Callable[[], list[list[int]]]:
    """The last of the tokens is the end, which is left out."""

    def run() -> list[list[int]]:
        return [tokens for batch in batches for tokens in searched(model, batch, beam)]

    return run


@torch.inference_mode()
def searched(model: WhisperRecognizer, batch: Batch, beam: int) -> list[list[int]]:
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    found = attention_beam(
        model.attention_decoder, encoded.frames, encoded.lengths, beam=beam, sos_eos=END, blank=-1,
        longest=NEW_TOKENS - 1, language_weights=encoded.language_weights,
    )  # fmt: skip
    return [nbest[0].tokens for nbest in found]


def peer_search(tokenizer: WhisperTokenizer, chosen: Sequence[Recording], beam: int) -> Callable[[], list[list[int]]]:
    model, features = base_model(tokenizer).eval(), peer_features(chosen)
    options = {"task": "transcribe", "do_sample": False, "num_beams": beam, "max_new_tokens": NEW_TOKENS}
    languages = [recording.language for recording in chosen]
    return lambda: model.generate(features, language=languages, **options)[:, : NEW_TOKENS - 1].tolist()


# --- the comparisons -------------------------------------------------------------------------------------------------


def alone(tokenizer: WhisperTokenizer) -> None:
    """Rows of masr's half, once and without warming up."""
    batch = batch_of(recordings(1, LANGUAGES[:1]), tokenizer)
    model = masr_model(tokenizer, "clip", lora=True)
    runs: Runs = {"training": masr_step(model, [batch]), "greedy": masr_search(model, [batch], 1)}
    for what, run in runs.items():
        [taken] = seconds_in_turn({"masr, clip": run}, repeats=1, warm_up=0).values()
        print_row([what, "masr, clip", f"{taken:.2f}"])


def beside_peer(tokenizer: WhisperTokenizer, repeats: int) -> list[str]:
    """Rows of training and decoding, and their ratios."""
    chosen = recordings(1, LANGUAGES[:2])
    batch = batch_of(chosen, tokenizer)
    models = {context: masr_model(tokenizer, context, lora=True) for context in CONTEXTS}
    steps: Runs = {f"masr, {context}": masr_step(model, [batch]) for context, model in models.items()}
    ratios, losses = compare("training", steps | {"transformers-peft": peer_step(tokenizer, chosen)}, repeats)
    models = {context: masr_model(tokenizer, context, lora=False) for context in CONTEXTS}
    for what, beam in (("greedy", 1), (f"beam-{BEAM}", BEAM)):
        searches: Runs = {f"masr, {context}": masr_search(model, [batch], beam) for context, model in models.items()}
        searches["transformers"] = peer_search(tokenizer, chosen, beam)
        more, found = compare(what, searches, repeats)
        ratios += more
        if beam == 1:
            same = found["masr, full"] == found["transformers"]
    difference = abs(losses["masr, full"] - losses["transformers-peft"])
    print(
        f"\nfull context: losses differ by {difference:.0e}, greedy transcripts are {'' if same else 'not '}the same\n"
    )
    return ratios


def of_experts(tokenizer: WhisperTokenizer, repeats: int) -> list[str]:
    """Rows and ratios of one batch of all languages beside one of each."""
    chosen = recordings(2)
    together = [batch_of(chosen, tokenizer)]
    each = [batch_of([r for r in chosen if r.language == code], tokenizer) for code in LANGUAGES]
    batches = {"masr, mixed": together, "a-pass-per-language": each}
    ratios = []
    for what, training in (("experts-training", True), ("experts-greedy", False)):
        models = {name: masr_model(tokenizer, "clip", lora=True, per_language=True).train(training) for name in batches}
        if training:
            runs: Runs = {name: masr_step(models[name], given) for name, given in batches.items()}
        else:
            runs = {name: masr_search(models[name], given, 1) for name, given in batches.items()}
        ratios += compare(what, runs, repeats)[0]
    return ratios


def compare(what: str, runs: Runs, repeats: int) -> tuple[list[str], dict[str, Any]]:
    """A row for each; the ratios of all others to the last, the peer; and what each gave when it ran last."""
    given: dict[str, Any] = {}

    def kept(name: str) -> Callable[[], None]:
        return lambda: given.update({name: runs[name]()})

    taken = seconds_in_turn({name: kept(name) for name in runs}, repeats)
    for name, seconds in taken.items():
        print_row([what, name, f"{seconds:.2f}"])
    *ours, peer = taken
    return [ratio_line(f"whisper-{what}-{name.split()[-1]}", peer, taken[name], taken[peer]) for name in ours], given


def main() -> None:
    options = common_options(__doc__, repeats=3).parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    tokenizer = tokenizer_of_base_size()
    print_head(["what", "who", "s"])
    if options.shortest:
        alone(tokenizer)
        return
    ratios = beside_peer(tokenizer, options.repeats)
    ratios += of_experts(tokenizer, options.repeats)
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
