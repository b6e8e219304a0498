"""Objectives on speech without text: contrastive predictive coding, and BEST-RQ.

What an utterance is compared with, if anything, is decided by the update, so that batches and processes do not matter.
B batch, T frames, F mel bins, D width, C codes.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from masr.config import SelfSupervised
from masr.data.features import FRAME_SHIFT
from masr.nn.encoder import EncoderOutput
from masr.nn.subsampling import length_mask, masked_mean

View = tuple[Tensor, Tensor]
"""Features (B, T, F) and lengths (B,) for the encoder."""


class CPC(nn.Module):
    """What comes next, told from what else there is (van den Oord et al. 2018, arXiv 1807.03748).

    As in Objective Soups (arXiv 2508.09228): the encoder hears ``context`` seconds from a random place on, and apart
    from them the ``future`` seconds after them; from the last frame of the context a small network predicts every frame
    of the future in turn. FOUND in the official code: a frame is told from all frames of the futures of the batch, by
    cosines divided by a temperature of 0.1. Here the batch is a group of recordings that the update decides on.
    RECONSTRUCTED: one place in a recording and epoch, where the official code takes one every half a second.

    Chance is log(recordings of the group): what is foreseen alike for all recordings, by the place of a frame in its
    future alone, has a mean loss of that or more.

    ``negatives: recording`` is RECONSTRUCTED: the frames in the same place of other pieces of the recording, each heard
    apart, too. In recordings hardly longer than context and future the pieces overlap, and the last one is the right
    one: there it is learnt without any context.

    Recordings shorter than context and future take no part: their loss is 0, and nothing is compared with them.
    """

    def __init__(self, mel_bins: int, width: int, options: SelfSupervised, subsampling: int):
        super().__init__()
        self.options = options
        self.predict = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def views(
        self, features: Tensor, lengths: Tensor, random: Tensor, groups: Tensor | None = None
    ) -> tuple[list[View], Tensor]:
        """Context, future and, with negatives from the recording, other pieces as long as the future.

        ``random`` (B, 9) numbers from 0 to 1 say where they begin. ``groups`` (B,) says which utterances are compared
        with each other (default: all); what the loss wants is the same, -1 where an utterance takes no part.
        """
        context, future = (round(seconds / FRAME_SHIFT) for seconds in (self.options.context, self.options.future))
        first, second = torch.full_like(lengths, context), torch.full_like(lengths, future)
        start = (random[:, 0] * (lengths - context - future).clamp(min=0)).long()
        views = [(_cut_out(features, start, first), first), (_cut_out(features, start + first, second), second)]
        if self.options.negatives == "recording":
            room = (lengths - future).clamp(min=0)
            others = [(random[:, n] * room).long() for n in range(1, self.options.windows)]
            views += [(_cut_out(features, other, second), second) for other in others]
        groups = torch.zeros_like(lengths) if groups is None else groups
        return views, groups.masked_fill(lengths < context + future, -1)

    def loss(self, outputs: Sequence[EncoderOutput], target: Tensor) -> Tensor:
        """(B,) mean cross-entropy of the frames of each future; 0 of what takes no part, or is alone in its group."""
        context, *pieces = outputs
        size = int(pieces[0].heard.max())  # as long in every recording
        last = context.frames[torch.arange(len(context.frames)), context.heard - 1]
        predicted = []
        for _ in range(size):
            last = last + self.predict(last)
            predicted.append(last)
        with torch.autocast(last.device.type, enabled=False):  # cosines are divided by a small temperature
            foreseen = F.normalize(torch.stack(predicted, 1).float(), dim=-1)
            found = [F.normalize(piece.frames[:, :size].float(), dim=-1) for piece in pieces]
            if self.options.negatives == "recording":
                return self._within_recordings(foreseen, found).masked_fill(target < 0, 0.0)
            return self._across_recordings(foreseen, found[0], target)

    def _within_recordings(self, foreseen: Tensor, found: Sequence[Tensor]) -> Tensor:
        """(B, T, D) and pieces (B, T, D), the right one first -> (B,)."""
        scores = (torch.stack(list(found), 2) @ foreseen[..., None]).squeeze(-1)
        return -(scores / self.options.temperature).log_softmax(-1)[..., 0].mean(1)

    def _across_recordings(self, foreseen: Tensor, found: Tensor, groups: Tensor) -> Tensor:
        """(B, T, D), (B, T, D), (B,) -> (B,): every frame among those of its group."""
        losses = 0.0 * (foreseen.sum((1, 2)) + found.sum((1, 2)))  # every parameter has its gradient
        for group in groups[groups >= 0].unique():
            [rows] = torch.where(groups == group)
            if len(rows) < 2:  # told from its own frames alone, which is to know the place
                continue
            scores = foreseen[rows].flatten(0, 1) @ found[rows].flatten(0, 1).T / self.options.temperature
            each = -scores.log_softmax(-1).diagonal()
            losses = losses.index_add(0, rows, each.view(len(rows), -1).mean(1))
        return losses


def _cut_out(features: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, F) from ``start`` (B,) on, as long as the longest of ``lengths`` (B,)."""
    positions = torch.arange(int(lengths.max()), device=features.device)
    taken = (start[:, None] + positions).clamp(max=features.shape[1] - 1)
    return features.gather(1, taken[..., None].expand(-1, -1, features.shape[2]))


class BestRQ(nn.Module):
    """Which random code the masked speech has (Chiu et al. 2022, arXiv 2202.01855).

    Spans of the features are replaced by noise. As many frames as become one encoder frame are projected at random and
    named by the nearest of ``codes`` random vectors; a linear layer on the encoder's frames has to tell these names.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(self, mel_bins: int, width: int, options: SelfSupervised, subsampling: int):
        super().__init__()
        self.options, self.subsampling = options, subsampling
        size = mel_bins * subsampling
        self.register_buffer("projection", nn.init.xavier_uniform_(torch.empty(size, options.code_size)))
        self.register_buffer("codebook", F.normalize(torch.randn(options.codes, options.code_size), dim=-1))
        self.output = nn.Linear(width, options.codes)

    def views(
        self, features: Tensor, lengths: Tensor, random: Tensor, groups: Tensor | None = None
    ) -> tuple[list[View], tuple[Tensor, Tensor]]:
        """The masked features; the codes (B, T') of what was there, and which frames (B, T') are masked.

        The first of the ``random`` numbers (B, 9) decides; there are no ``groups`` to compare.
        """
        codes = self.codes(features, lengths)
        own = length_mask(-(-lengths // self.subsampling), codes.shape[1])
        span = max(1, round(self.options.mask_seconds / FRAME_SHIFT / self.subsampling))
        drawn = _own_numbers(random, -(-lengths // self.subsampling), 1, torch.rand).squeeze(-1)
        starts = (drawn.to(features.device) < self.options.mask_share / span) & own
        starts[:, 0] |= ~starts.any(1)
        masked = F.max_pool1d(F.pad(starts.float(), (span - 1, 0)), span, stride=1).bool() & own
        hidden = masked.repeat_interleave(self.subsampling, 1)[:, : features.shape[1], None]
        mean, deviation = _statistics(features, lengths)
        noise = mean + 0.1 * deviation * _own_numbers(random, lengths, features.shape[2], torch.randn).to(features)
        return [(torch.where(hidden, noise, features), lengths)], (codes, masked)

    def codes(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, F) -> (B, T') numbers; each utterance is normalised first, what is not there counts as its mean.

        In float32 whatever the precision of training: rounded projections have other codes.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self._codes(features.float(), lengths)

    def _codes(self, features: Tensor, lengths: Tensor) -> Tensor:
        mean, deviation = _statistics(features, lengths)
        normal = (features - mean) / deviation * length_mask(lengths, features.shape[1])[..., None]
        frames = -(-features.shape[1] // self.subsampling)
        padded = F.pad(normal, (0, 0, 0, frames * self.subsampling - features.shape[1]))
        projected = padded.unflatten(1, (frames, self.subsampling)).flatten(2) @ self.projection.float()
        return (F.normalize(projected, dim=-1) @ self.codebook.float().T).argmax(-1)

    def loss(self, outputs: Sequence[EncoderOutput], target: tuple[Tensor, Tensor]) -> Tensor:
        """(B,) mean cross-entropy of the masked frames of each utterance."""
        codes, masked = target
        size = int(outputs[0].heard.max())
        codes, masked = codes[:, :size], masked[:, :size]
        logits = self.output(outputs[0].frames[:, :size]).float()
        losses = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        return losses.masked_fill(~masked, 0.0).sum(1) / masked.sum(1).clamp(min=1)


def _own_numbers(random: Tensor, lengths: Tensor, size: int, kind: Callable[..., Tensor]) -> Tensor:
    """(B, T, size) random numbers of each utterance, zero in its padding, that follow from its first one alone."""
    seeds = (random[:, 0].double() * 2**40).long().tolist()
    rows = zip(seeds, lengths.tolist(), strict=True)
    return pad_sequence(
        [kind((length, size), generator=torch.Generator().manual_seed(seed)) for seed, length in rows], batch_first=True
    )


def _statistics(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 1, F) of each utterance's own frames."""
    own = length_mask(lengths, features.shape[1])
    mean = masked_mean(features, own)
    variance = masked_mean((features - mean).square(), own)
    return mean, (variance + 1e-5).sqrt()


SELF_SUPERVISED: dict[str, type[CPC] | type[BestRQ]] = {"cpc": CPC, "best-rq": BestRQ}
