"""A byte-pair CLIPTokenizer learnt from the instructions (Sennrich et al. 2016; Radford 2021).

CLIP's conventions: lower case, words split by its pattern, every byte is a printable character,
the last piece of a word ends with </w>. All 256 bytes are in the vocabulary in both forms, so that
every text has a code and nothing is unknown.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizer

from wys.errors import WysError
from wys.store import write_atomically, write_json

START, END = "<|startoftext|>", "<|endoftext|>"
_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, after CLIP's normalisation, in printable characters."""
    normalise = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)):
            counts[word] += times
    return counts


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """The byte-pair merges in order: again and again the most frequent pair of neighbours.

    Ties go to the pair that comes first in the alphabet. Stops early when every word is whole.
    """
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def build_tokenizer(
    instructions: Iterable[str], folder: Path, *, vocabulary: int = 1000, length: int = 32
) -> CLIPTokenizer:
    """Learns a tokenizer, writes it to `folder` as CLIPTokenizer files, and loads it from there.

    Args:
        vocabulary: at most this many tokens, at least 514 (bytes in two forms, two marks).
        length: tokens of an instruction with its two marks; longer ones are cut.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*alphabet, *(character + "</w>" for character in alphabet)]
    merges = learn_merges(word_counts(instructions), vocabulary - len(base) - 2)
    # Two ways to one word give the same token twice; it is listed once.
    tokens = list(dict.fromkeys([*base, *(left + right for left, right in merges), START, END]))
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=length,
    )
    save_tokenizer(tokenizer, folder)
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a folder; raises WysError where there is none.

    Asked for a folder that is not there, the library would look for its name on the hub.
    """
    if not (folder / "vocab.json").exists():
        raise WysError(f"{folder} has no tokenizer; run the tokenizer stage.")
    return CLIPTokenizer.from_pretrained(folder)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the tokenizer, also as the two files that earlier versions of transformers read."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_json(folder / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in model["merges"])]
    with write_atomically(folder / "merges.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
