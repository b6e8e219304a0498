"""Objectives on speech without text: contrastive predictive coding, and BEST-RQ.

An utterance is compared with nothing but itself, so that batches and processes do not matter.
B batch, T frames, F mel bins, D width, C codes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masr.config import SelfSupervised
from masr.data.features import FRAME_SHIFT
from masr.nn.encoder import EncoderOutput
from masr.nn.subsampling import length_mask, masked_mean

View = tuple[Tensor, Tensor]
"""Features (B, T, F) and lengths (B,) for the encoder."""


class CPC(nn.Module):
    """What comes next, told from what else the recording holds (van den Oord et al. 2018, arXiv 1807.03748).

    As in Objective Soups (arXiv 2508.09228): the encoder hears ``context`` seconds, and apart from them the ``future``
    seconds after them; from the last frame of the context a small network predicts every frame of the future in turn.
    RECONSTRUCTED: the others among which a frame has to be found are those of the same future.
    """

    def __init__(self, mel_bins: int, width: int, options: SelfSupervised, subsampling: int):
        super().__init__()
        self.options = options
        self.predict = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def views(self, features: Tensor, lengths: Tensor) -> tuple[list[View], None]:
        """Context and future; both are shorter, by the same share, where an utterance is."""
        context, future = (round(seconds / FRAME_SHIFT) for seconds in (self.options.context, self.options.future))
        share = (lengths / (context + future)).clamp(max=1.0)
        first, second = (share * context).long().clamp(min=1), (share * future).long().clamp(min=1)
        positions = torch.arange(int(second.max()), device=features.device)
        taken = (first[:, None] + positions).clamp(max=features.shape[1] - 1)
        after = features.gather(1, taken[..., None].expand(-1, -1, features.shape[2]))
        return [(features[:, : int(first.max())], first), (after, second)], None

    def loss(self, outputs: Sequence[EncoderOutput], target: None) -> Tensor:
        """(B,) mean cross-entropy of the frames of each future."""
        context, future = outputs
        last = context.frames[torch.arange(len(context.frames)), context.lengths - 1]
        predicted = []
        for _ in range(future.frames.shape[1]):
            last = last + self.predict(last)
            predicted.append(last)
        scores = F.normalize(torch.stack(predicted, 1), dim=-1) @ F.normalize(future.frames, dim=-1).transpose(1, 2)
        mask = length_mask(future.lengths, future.frames.shape[1])
        scores = (scores.float() / self.options.temperature).masked_fill(~mask[:, None], -torch.inf)
        losses = -scores.log_softmax(-1).diagonal(dim1=1, dim2=2)
        return losses.masked_fill(~mask, 0.0).sum(1) / future.lengths


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

    def views(self, features: Tensor, lengths: Tensor) -> tuple[list[View], tuple[Tensor, Tensor]]:
        """The masked features; the codes (B, T') of what was there, and which frames (B, T') are masked."""
        codes = self.codes(features, lengths)
        own = length_mask(-(-lengths // self.subsampling), codes.shape[1])
        span = max(1, round(self.options.mask_seconds / FRAME_SHIFT / self.subsampling))
        starts = (torch.rand(codes.shape, device=features.device) < self.options.mask_share / span) & own
        starts[:, 0] |= ~starts.any(1)
        masked = F.max_pool1d(F.pad(starts.float(), (span - 1, 0)), span, stride=1).bool() & own
        hidden = masked.repeat_interleave(self.subsampling, 1)[:, : features.shape[1], None]
        mean, deviation = _statistics(features, lengths)
        noise = mean + 0.1 * deviation * torch.randn_like(features)
        return [(torch.where(hidden, noise, features), lengths)], (codes, masked)

    def codes(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, F) -> (B, T') numbers; each utterance is normalised first, what is not there counts as its mean."""
        mean, deviation = _statistics(features, lengths)
        normal = (features - mean) / deviation * length_mask(lengths, features.shape[1])[..., None]
        frames = -(-features.shape[1] // self.subsampling)
        padded = F.pad(normal, (0, 0, 0, frames * self.subsampling - features.shape[1]))
        projected = padded.unflatten(1, (frames, self.subsampling)).flatten(2) @ self.projection
        return (F.normalize(projected, dim=-1) @ self.codebook.T).argmax(-1)

    def loss(self, outputs: Sequence[EncoderOutput], target: tuple[Tensor, Tensor]) -> Tensor:
        """(B,) mean cross-entropy of the masked frames of each utterance."""
        codes, masked = target
        logits = self.output(outputs[0].frames).float()
        losses = F.cross_entropy(logits.transpose(1, 2), codes[:, : logits.shape[1]], reduction="none")
        masked = masked[:, : logits.shape[1]]
        return losses.masked_fill(~masked, 0.0).sum(1) / masked.sum(1).clamp(min=1)


def _statistics(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 1, F) of each utterance's own frames."""
    own = length_mask(lengths, features.shape[1])
    mean = masked_mean(features, own)
    variance = masked_mean((features - mean).square(), own)
    return mean, (variance + 1e-5).sqrt()


SELF_SUPERVISED: dict[str, type[CPC] | type[BestRQ]] = {"cpc": CPC, "best-rq": BestRQ}
