"""Training steps of masr's Conformer beside transformers' Wav2Vec2ConformerEncoder of the same size.

    .venv/bin/python benchmarks/training.py [--threads 1]

A step is forward, CTC loss, backward, AdamW. Both encoders get the same frames (B, T, D), the same padding, the same
CTC head and the same optimiser, in one process. They have the same width, depth, heads, feed-forward, kernel and
activation, and dropout of the same rate in the same places (the peer's extra dropout on attention weights, which masr
does not have, is off). The peer runs its ``sdpa`` attention, which transformers picks by itself, with ``relative``
positions, its default, and with ``rotary`` ones, which are masr's. The row "with subsampling" is masr from log-mel
features; the ratio ``training-with-our-subsampling`` sets it against the peer that is given its frames for nothing.

B batch, T encoder frames of 40 ms, D width, F mel bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from measure import common_options, print_head, print_row, ratio_line, say_absent, seconds_in_turn
from torch import Tensor, nn

from masr.config import Encoder as Options
from masr.config import Train
from masr.nn.encoder import Encoder
from masr.nn.heads import CTCHead
from masr.nn.subsampling import length_mask
from masr.train.optim import build_optimizer

try:
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder
except ImportError:
    Wav2Vec2ConformerConfig = None

MEL_BINS, VOCABULARY, FRAMES_PER_SECOND, CHARACTERS_PER_SECOND = 80, 160, 25, 12
BATCHES = {"12x2.5s": (12, 2.5), "2x15s": (2, 15.0)}
SHORTEST = {"2x1s": (2, 1.0)}
POSITIONS = ("relative", "rotary")


@dataclass
class Inputs:
    """A batch whose shortest recording has 80 % of the longest one's length."""

    features: Tensor  # (B, 4T, F)
    frames: Tensor  # (B, T, D)
    lengths: Tensor  # (B,), in encoder frames
    ids: Tensor
    id_lengths: Tensor

    @classmethod
    def random(cls, size: int, seconds: float, width: int) -> "Inputs":
        longest = round(seconds * FRAMES_PER_SECOND)
        lengths = torch.linspace(longest, 0.8 * longest, size).long()
        id_lengths = lengths * CHARACTERS_PER_SECOND // FRAMES_PER_SECOND
        ids = torch.randint(1, VOCABULARY, (size, int(id_lengths.max())))
        features, frames = torch.randn(size, 4 * longest, MEL_BINS), torch.randn(size, longest, width)
        return cls(features, frames, lengths, ids, id_lengths)


class GivenFrames(nn.Module):
    """In the place of masr's subsampling: passes encoder frames on."""

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return frames, lengths


class Peer(nn.Module):
    """transformers' encoder, from frames (B, T, D) and lengths (B,) to frames."""

    def __init__(self, options: Options, positions: str):
        super().__init__()
        rate = options.dropout
        config = Wav2Vec2ConformerConfig(
            hidden_size=options.width, num_hidden_layers=options.layers, num_attention_heads=options.heads,
            intermediate_size=options.feedforward, conv_depthwise_kernel_size=options.kernel, hidden_act="silu",
            hidden_dropout=rate, activation_dropout=rate, attention_dropout=rate, conformer_conv_dropout=rate,
            layerdrop=0.0, position_embeddings_type=positions, attn_implementation="sdpa",
        )  # fmt: skip
        self.encoder = Wav2Vec2ConformerEncoder(config)
        for layer in self.encoder.layers:
            layer.self_attn.dropout.p = 0.0  # on attention weights; attention_dropout also sets the one after attention

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        # A clone, because the peer writes zeros into the padding of what it is given.
        return self.encoder(frames.clone(), length_mask(lengths, frames.shape[1])).last_hidden_state


def training_step(
    encode: Callable[[Inputs], Tensor], encoder: nn.Module, width: int, inputs: Inputs
) -> Callable[[], None]:
    """One update on ``inputs`` for each call."""
    head = CTCHead(width, VOCABULARY)
    optimizer = build_optimizer(nn.ModuleList([encoder, head]).train(), Train(optimizer="adamw"))

    def step() -> None:
        losses = head.loss(encode(inputs), inputs.lengths, inputs.ids, inputs.id_lengths)
        (losses.sum() / inputs.id_lengths.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def contenders(options: Options, inputs: Inputs, positions: Sequence[str]) -> dict[str, Callable[[], None]]:
    """A training step of every row of the table; the peer's with each of ``positions``."""
    given, whole = Encoder(MEL_BINS, options), Encoder(MEL_BINS, options)
    given.subsampling = GivenFrames()  # type: ignore[assignment]
    steps = {
        "masr": training_step(lambda x: given(x.frames, x.lengths).frames, given, options.width, inputs),
        "masr, with subsampling": training_step(
            lambda x: whole(x.features, 4 * x.lengths).frames, whole, options.width, inputs
        ),
    }
    for kind in positions:
        peer = Peer(options, kind)
        steps[kind] = training_step(lambda x, peer=peer: peer(x.frames, x.lengths), peer, options.width, inputs)
    return steps


def main() -> None:
    arguments = common_options(__doc__, repeats=15).parse_args()
    batches, warm_up, positions = BATCHES, 3, POSITIONS
    if arguments.shortest:
        batches, warm_up, arguments.repeats = SHORTEST, 0, 1
    if arguments.shortest or Wav2Vec2ConformerConfig is None:
        say_absent("transformers", "training")
        positions = ()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    options = Options(layers=6, width=144, heads=4, feedforward=576, kernel=15, subsampling_channels=32, dropout=0.1)

    print_head(["batch", "threads", "encoder", "ms a step", "audio seconds a second"])
    ratios = []
    for batch, (size, seconds) in batches.items():
        inputs = Inputs.random(size, seconds, options.width)
        taken = seconds_in_turn(contenders(options, inputs, positions), arguments.repeats, warm_up)
        audio = float(inputs.lengths.sum()) / FRAMES_PER_SECOND
        for name, median in taken.items():
            label = name if name.startswith("masr") else f"Wav2Vec2ConformerEncoder, {name} positions"
            print_row([batch, arguments.threads, label, f"{1000 * median:.1f}", f"{audio / median:.0f}"])
        for ours, what in (("masr", "training"), ("masr, with subsampling", "training-with-our-subsampling")):
            for kind in positions:
                ratios.append(ratio_line(f"{what}-{batch}", f"transformers-{kind}", taken[ours], taken[kind]))
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
