"""Instructions with words that were never seen, so that a sentence is read by those that matter.

Trained on a few dozen phrasings, a text encoder learns them by heart: in a sentence that begins
with another verb it finds nothing to do. Some words that carry no meaning of their own are left out
or replaced by random tokens in training, random tokens are strewn in and put around, and verbs that
alone say what to do give way to others that say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer

from wys.tabletop.synonyms import SYNONYMS

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
    around: float = 0.25
    """Probability that one to three random words stand before an instruction, and as often after
    it, where there is room."""
    synonyms: float = 0.5
    """Probability that a synonym takes the place of a word that has some, garbled or not."""
    length: int = 3
    """Most tokens of a random word."""


class Garbler:
    """Garbles token rows of one tokenizer."""

    def __init__(self, tokenizer: CLIPTokenizer, settings: GarblingSettings) -> None:
        self.settings = settings
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.count = min(self.start, self.end)

        def read(words: str) -> list[int]:
            return tokenizer(words, add_special_tokens=False).input_ids

        rows = (read(word) for word in FILLERS)
        self.fillers = {row[0] for row in rows if len(row) == 1}
        self.synonyms = {
            tuple(read(word)): [read(other) for other in others]
            for word, others in SYNONYMS.items()
        }
        self.longest = max(map(len, self.synonyms))

    def __call__(
        self, tokens: Int[Tensor, "b length"], draw: torch.Generator
    ) -> Int[Tensor, "b length"]:
        """The rows with a share of them garbled; start and end stay, and so does the length."""
        rows = [self._row(row, draw) for row in tokens.tolist()]
        return torch.tensor(rows, dtype=tokens.dtype)

    def _row(self, row: list[int], draw: torch.Generator) -> list[int]:
        how, length = self.settings, len(row)
        words = self._retold(row[1 : row.index(self.end)], draw)
        luck = torch.rand(3 + 2 * len(words), generator=draw).tolist()
        garbled = words
        if luck[0] < how.share:
            garbled = []
            for i, token in enumerate(words):
                chance, strewn = luck[3 + 2 * i : 5 + 2 * i]
                if token not in self.fillers or chance >= how.fillers:
                    garbled.append(token)
                elif chance < how.fillers / 2:
                    garbled += self._random(draw)
                if strewn < how.strewn:
                    garbled += self._random(draw)
            before, after = (
                self._words(draw) if chance < how.around else [] for chance in luck[1:3]
            )
            if len(before + garbled + after) <= length - 2:
                garbled = before + garbled + after
        garbled = garbled[: length - 2]
        return [self.start, *garbled] + [self.end] * (length - 1 - len(garbled))

    def _retold(self, words: list[int], draw: torch.Generator) -> list[int]:
        """The words with some of them in synonyms."""
        told: list[int] = []
        i = 0
        while i < len(words):
            found = [
                n for n in range(1, self.longest + 1) if tuple(words[i : i + n]) in self.synonyms
            ]
            n = max(found, default=1)
            chance, which = torch.rand(2, generator=draw).tolist() if found else (1.0, 0.0)
            same = words[i : i + n]
            if chance < self.settings.synonyms:
                others = self.synonyms[tuple(same)]
                same = others[int(which * len(others))]
            told += same
            i += n
        return told

    def _words(self, draw: torch.Generator) -> list[int]:
        """One to three random words."""
        count = int(torch.randint(1, 4, (), generator=draw))
        return [token for _ in range(count) for token in self._random(draw)]

    def _random(self, draw: torch.Generator) -> list[int]:
        count = int(torch.randint(1, self.settings.length + 1, (), generator=draw))
        return torch.randint(self.count, (count,), generator=draw).tolist()
