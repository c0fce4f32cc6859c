"""Mistakes in the arguments of a command, each as one sentence that names the option.

tyro draws a box of ten lines that lists what Python's types would have taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from wys.errors import WysError


@contextmanager
def in_one_sentence(
    arguments: Sequence[str], options: Callable[[], Iterable[str]]
) -> Iterator[None]:
    """Turns what tyro refuses into a WysError.

    Args:
        arguments: that are parsed inside.
        options: gives the options that there are, with their dashes.

    tyro tells of its refusals in a module that it does not promise to keep. Where it has no such
    module, or tells of something else, its own words and exit code 2 remain.
    """
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        yield
        return

    def tell(event: Any) -> None:
        try:
            sentence = _sentence(event, arguments, options)
        except (AttributeError, TypeError, IndexError):
            return
        if sentence is not None:
            raise WysError(f"{sentence}; '{event.prog} --help' lists what there is.")

    with on_parse_error(tell):
        yield


def _sentence(
    event: Any, arguments: Sequence[str], options: Callable[[], Iterable[str]]
) -> str | None:
    """What is wrong, without a full stop; None where that is not known."""
    match type(event).__name__:
        case "UnrecognizedArgs":
            return _unknown(event.tokens, options)
        case "MissingArgs":
            # A misspelt option is why the right one is missing.
            if event.unrecognized_tokens:
                return _unknown(event.unrecognized_tokens, options)
            names = [_name(each.arg) for each in event.missing_arguments]
            return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
        case "BadValue" if event.argument.is_positional():
            return f"{_name(event.argument)} is missing"
        case "BadValue" | "InvalidChoice" | "InstantiationFailure" if event.argument is not None:
            name, takes = _name(event.argument), event.argument.lowered.metavar
            if event.argument.is_positional():
                return f"'{event.value}' is none of {takes}"
            given = _given(name, arguments)
            words = f"{name} takes {takes}" if takes else f"{name} takes no value"
            return f"{words}, not '{given}'" if given else words
    return None


def _unknown(tokens: Sequence[str], options: Callable[[], Iterable[str]]) -> str:
    typed = next((token.split("=")[0] for token in tokens if token.startswith("--")), None)
    if typed is None:
        return f"'{tokens[0]}' is one word too many"
    meant = get_close_matches(typed, list(options()), n=1, cutoff=0.75)
    return f"there is no option {typed}" + (f" (did you mean {meant[0]}?)" if meant else "")


def _name(argument: Any) -> str:
    """As the help calls it: --out, or IMAGE."""
    if argument.is_positional():
        return str(argument.lowered.metavar)
    return str(argument.lowered.name_or_flags[0])


def _given(name: str, arguments: Sequence[str]) -> str:
    """The values that the last use of an option has on the command line."""
    last = max((i for i, word in enumerate(arguments) if word.split("=")[0] == name), default=None)
    if last is None:
        return ""
    values = arguments[last].split("=", 1)[1:]
    for word in () if values else arguments[last + 1 :]:
        if word.startswith("--"):
            break
        values.append(word)
    return " ".join(values)
