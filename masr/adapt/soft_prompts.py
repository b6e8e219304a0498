"""Soft prompts: vectors that are learnt before the frames, and before the tokens, of a Whisper that stays as it is.

Of LAPT (Yang et al. 2025, arXiv 2506.21577) only the abstract could be read: prompts of encoder and decoder, and light
matrices that make a language's prompt of what languages share. RECONSTRUCTED: everything else here, from soft prompts
of Whisper for target speakers (Ma et al. 2024, ICASSP), residual prompt tuning (arXiv 2305.03937) and multitask prompt
tuning (arXiv 2303.02861).

B utterances, K languages, N layers with prompts, L vectors of a prompt, D width, R rank.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from masr.config import SoftPrompts as Options

SPREAD = 0.02
"""Standard deviation of new vectors, about that of Whisper's token embeddings."""


class SoftPrompts(nn.Module):
    """The prompts of one side (encoder or decoder), for every language."""

    def __init__(self, options: Options, layers: int, width: int, languages: Sequence[str]):
        super().__init__()
        self.kind, depth = options.languages, layers if options.deep else 1
        shape = (depth, options.length, width)
        self.length = options.length + (options.own_length if self.kind == "concat" else 0)
        self.shared = None if self.kind == "own" else nn.Parameter(SPREAD * torch.randn(shape))
        self.own, self.left, self.right = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for code in languages:
            self.add(code, options, shape)
        self.mlp = ResidualMLP(width, options.bottleneck) if options.bottleneck else None

    def add(self, code: str, options: Options, shape: tuple[int, int, int]) -> None:
        """What is a language's own: all of its prompt, a part of it, or two matrices whose product begins as 0."""
        depth, length, width = shape
        if self.kind in ("own", "concat"):
            own = options.own_length if self.kind == "concat" else length
            self.own[code] = nn.Parameter(SPREAD * torch.randn(depth, own, width))
        elif self.kind in ("add", "hadamard"):
            self.left[code] = nn.Parameter(torch.randn(depth, length, options.rank) / options.rank**0.5)
            self.right[code] = nn.Parameter(torch.zeros(depth, options.rank, width))

    def forward(self, weights: Tensor) -> Tensor:
        """(B, K) weights of languages -> (N, B, L, D): the prompt of every layer, mixed as they say."""
        shared = None if self.shared is None else self._residual(self.shared)
        own = [self._residual(prompt) for prompt in self.own.values()]
        light = [self.left[code] @ self.right[code] for code in self.left]
        if self.kind == "concat":
            assert shared is not None
            return torch.cat((_for_all(shared, weights), _mixed(own, weights)), 2)
        if shared is None:
            return _mixed(own, weights)
        if self.kind == "add":
            return _for_all(shared, weights) + _mixed(light, weights)
        if self.kind == "hadamard":
            return shared[:, None] * (1 + _mixed(light, weights))
        return _for_all(shared, weights)

    def _residual(self, prompt: Tensor) -> Tensor:
        return prompt if self.mlp is None else self.mlp(prompt)

    def parameters_of(self, code: str) -> Iterable[nn.Parameter]:
        """What only one language has."""
        return [group[code] for group in (self.own, self.left, self.right) if code in group]

    def copy_language(self, source: str, target: str) -> None:
        """Makes the prompt of a new language that of a near one."""
        for theirs, ours in zip(self.parameters_of(source), self.parameters_of(target), strict=True):
            ours.data.copy_(theirs.data)

    @torch.no_grad()
    def fold(self) -> None:
        """Applies the residual network for good: the same prompts, without it."""
        if self.mlp is None:
            return
        for prompt in [*([] if self.shared is None else [self.shared]), *self.own.values()]:
            prompt.copy_(self.mlp(prompt))
        self.mlp = None


class ResidualMLP(nn.Module):
    """p + LayerNorm(MLP(p)) (arXiv 2305.03937, eq. 2); it begins as p."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, prompt: Tensor) -> Tensor:
        return prompt + self.norm(self.outer(self.inner(prompt).relu()))


class LanguageVectors(nn.Module):
    """Vectors (K, D) of languages in the place of those of their tokens (language-code tuning, arXiv 2407.06800)."""

    def __init__(self, vectors: dict[str, Tensor]):
        super().__init__()
        self.own = nn.ParameterDict({code: nn.Parameter(vector.clone()) for code, vector in vectors.items()})

    def forward(self) -> Tensor:
        """(K, D)."""
        return torch.stack(list(self.own.values()))

    def parameters_of(self, code: str) -> Iterable[nn.Parameter]:
        """What only one language has."""
        return [self.own[code]]

    def copy_language(self, source: str, target: str) -> None:
        """Makes the vector of a new language that of a near one."""
        self.own[target].data.copy_(self.own[source].data)


def _for_all(shared: Tensor, weights: Tensor) -> Tensor:
    """(N, L, D) -> (N, B, L, D)."""
    return shared[:, None].expand(-1, len(weights), -1, -1)


def _mixed(own: Sequence[Tensor], weights: Tensor) -> Tensor:
    """K prompts (N, L, D) -> (N, B, L, D)."""
    return torch.einsum("bk,knld->nbld", weights.to(own[0].dtype), torch.stack(list(own)))
