"""Instructions with words that were never seen, so that a sentence is read by those that matter.

Trained on a few dozen phrasings, a text encoder learns them by heart: in a sentence that begins
with another verb it finds nothing to do. Some words that carry no meaning of their own are left out
or replaced by random tokens in training, and random tokens are strewn in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer

FILLERS = (
    *("make", "turn", "paint", "color", "colour", "recolor", "recolour", "change", "set", "give"),
    *("let", "be", "should", "want", "i", "to", "into", "the", "a", "an", "of", "is", "have", "it"),
)
"""Words without which an instruction can still be understood."""


@dataclass(frozen=True)
class GarblingSettings:
    """How instructions are garbled in training."""

    share: float = 0.6
    """Share of the instructions that are garbled."""
    fillers: float = 0.35
    """Probability that a filler is left out, or as often replaced."""
    strewn: float = 0.08
    """Probability that random tokens follow a token."""
    length: int = 3
    """Most tokens of a random word."""


class Garbler:
    """Garbles token rows of one tokenizer."""

    def __init__(self, tokenizer: CLIPTokenizer, settings: GarblingSettings) -> None:
        self.settings = settings
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.count = min(self.start, self.end)
        rows = (tokenizer(word, add_special_tokens=False).input_ids for word in FILLERS)
        self.fillers = {row[0] for row in rows if len(row) == 1}

    def __call__(
        self, tokens: Int[Tensor, "b length"], draw: torch.Generator
    ) -> Int[Tensor, "b length"]:
        """The rows with a share of them garbled; start and end stay, and so does the length."""
        rows = [self._row(row, draw) for row in tokens.tolist()]
        return torch.tensor(rows, dtype=tokens.dtype)

    def _row(self, row: list[int], draw: torch.Generator) -> list[int]:
        how, length = self.settings, len(row)
        luck = torch.rand(1 + 2 * length, generator=draw).tolist()
        if luck[0] >= how.share:
            return row
        words = row[1 : row.index(self.end)]
        garbled: list[int] = []
        for i, token in enumerate(words):
            chance, strewn = luck[1 + i], luck[1 + length + i]
            if token not in self.fillers or chance >= how.fillers:
                garbled.append(token)
            elif chance < how.fillers / 2:
                garbled += self._random(draw)
            if strewn < how.strewn:
                garbled += self._random(draw)
        garbled = garbled[: length - 2]
        return [self.start, *garbled] + [self.end] * (length - 1 - len(garbled))

    def _random(self, draw: torch.Generator) -> list[int]:
        count = int(torch.randint(1, self.settings.length + 1, (), generator=draw))
        return torch.randint(self.count, (count,), generator=draw).tolist()
