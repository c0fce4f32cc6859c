"""The command `wys`: finds the subcommand, has tyro parse its options, turns errors into words.

A subcommand's module is imported only when it is asked for, so that `wys --help` is quick.
Exit codes: 0 done (also when there was nothing to edit), 2 wrong input, 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, TextIO


@dataclass(frozen=True)
class Command:
    """One subcommand: what it is for, and the function that is its command line."""

    words: str
    """What the user types after `wys`."""
    help: str
    module: str
    function: str


COMMANDS = (
    Command(
        "edit", "edit an image, only where the instruction says", "wys.apps.image_commands", "edit"
    ),
    Command(
        "relevance",
        "show where an instruction would change an image",
        "wys.apps.image_commands",
        "relevance",
    ),
    *(
        Command(f"scene {name}", help, f"wys.apps.{module}", name)
        for name, help, module in (
            ("fit", "fit a radiance field to posed photographs", "scene_fit_command"),
            ("render", "render a scene as pictures or films", "scene_commands"),
            ("info", "say what a scene's folder holds", "scene_commands"),
            ("relevance", "show where it would change a scene", "scene_relevance_command"),
            ("edit", "edit a scene, only where the instruction says", "scene_edit_command"),
            ("undo", "take the last edit of a scene away", "scene_commands"),
            ("export", "write views with their cameras", "scene_commands"),
        )
    ),
    Command("page", "edit images in the browser", "wys.apps.page.command", "page"),
    Command("view", "look at a scene in the browser, and edit it", "wys.apps.view.command", "view"),
    Command(
        "tabletop",
        "render sample images with their exact edits and masks",
        "wys.apps.tabletop_command",
        "tabletop",
    ),
    Command("train", "train an editor", "wys.apps.train_command", "train"),
    Command(
        "bench image",
        "measure an editor on the tabletop world or a folder",
        "wys.apps.bench_commands",
        "bench_image",
    ),
    Command(
        "bench curves",
        "measure edit against preservation",
        "wys.apps.bench_commands",
        "bench_curves",
    ),
    Command(
        "bench speed",
        "time the map and the edit against other programs",
        "wys.apps.bench_commands",
        "bench_speed",
    ),
    Command(
        "bench tune",
        "find an editor's best settings; writes wys.json",
        "wys.apps.bench_commands",
        "bench_tune",
    ),
    Command(
        "bench relevance",
        "compare ways of making and using maps",
        "wys.apps.study_command",
        "bench_relevance",
    ),
    Command(
        "bench scene-fit",
        "measure how fast a field fits photographs",
        "wys.apps.bench_commands",
        "bench_scene_fit",
    ),
    Command(
        "bench scene-edit",
        "measure scene edits against exact truth",
        "wys.apps.bench_commands",
        "bench_scene_edit",
    ),
    Command(
        "bench table",
        "print a bench's JSON as a Markdown table",
        "wys.apps.bench_commands",
        "bench_table",
    ),
    Command("doctor", "say what is here and what is missing", "wys.apps.doctor", "doctor"),
    Command("completion", "print a shell's completion", "wys.apps.completion", "completion"),
)


def usage(commands: Sequence[Command] = COMMANDS) -> str:
    """The overview: one line for each subcommand, at most 80 columns."""
    width = max(len(command.words) for command in commands)
    lines = [f"  wys {command.words:<{width}}  {command.help}" for command in commands]
    return "\n".join(
        [
            "wys edits images and scenes by an instruction, only where the instruction says.",
            "",
            *lines,
            "",
            "'wys COMMAND --help' lists a command's options, 'wys --version' the version.",
        ]
    )


def find_command(arguments: Sequence[str]) -> tuple[Command, list[str]] | None:
    """The subcommand that the arguments begin with, and the arguments after it."""
    for command in COMMANDS:
        words = command.words.split()
        if list(arguments[: len(words)]) == words:
            return command, list(arguments[len(words) :])
    return None


def function_of(command: Command) -> Callable[..., None]:
    """The function whose signature is the command line; imports the subcommand's module."""
    function: Callable[..., None] = getattr(
        importlib.import_module(command.module), command.function
    )
    return function


def actions_of(command: Command) -> Sequence[Any]:
    """A subcommand's arguments as argparse would hold them, to look them up in."""
    import tyro

    with warnings.catch_warnings():
        # tyro advises its own completion scripts; those start Python at every press of TAB.
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(
            function_of(command), config=(tyro.conf.FlagCreatePairsOff,)
        )
    return parser._actions


def parse(command: Command, arguments: Sequence[str]) -> Callable[[], None]:
    """The call that the arguments ask for, ready to be made.

    Help ends the program, as it does on the command line (SystemExit).

    Raises:
        WysError: a mistake in the arguments.
    """
    import tyro

    from wys.apps.mistakes import in_one_sentence

    function = function_of(command)

    # tyro calls what it parses for; a stand-in of the same signature hands the call over instead.
    @functools.wraps(function)
    def asked_for(*args: object, **kwargs: object) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    tyro.extras.set_accent_color("cyan")

    def options() -> Iterator[str]:
        for action in actions_of(command):
            yield from action.option_strings

    with in_one_sentence(arguments, options):
        call: Callable[[], None] = tyro.cli(
            asked_for,
            prog=f"wys {command.words}",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    return call


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings are one line for the user; those of libraries concern their authors."""
    from wys.errors import WysWarning

    if issubclass(category, WysWarning):
        print(f"wys: warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        code = answer(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:  # Closed by who began the program.
            sys.stdout.flush()
    except BrokenPipeError:
        # Who reads our output has seen enough.
        _to_nowhere()
        return 141
    except OSError as error:
        _to_nowhere()
        print(
            f"wys: cannot write what is to be said: {error.strerror or error}; make room, or send "
            "it elsewhere.",
            file=sys.stderr,
        )
        return 2
    return code


def _to_nowhere() -> None:
    """Drops what is not written yet: Python would complain of it once more at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(arguments: list[str]) -> int:
    """Prints what help is asked for, or runs a subcommand; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"wys {version('wys')}")
        return 0
    found = find_command(arguments)
    if found is None:
        family = [c for c in COMMANDS if c.words.split()[0] == arguments[0]]
        if family and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
            print(usage(family))
            return 0 if len(arguments) > 1 else 2
        typed = " ".join(arguments[: 2 if family else 1])
        print(f"wys: no command '{typed}'; 'wys --help' lists them.", file=sys.stderr)
        return 2
    return run(*found)


@contextmanager
def tidy_end() -> Iterator[None]:
    """Lets a polite kill end the program as an interrupt does: nothing half-made is left behind."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What was started to survive a hang-up does.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(command: Command, arguments: list[str]) -> int:
    """Imports and runs one subcommand; every expected failure is one sentence and exit code 2."""
    # Progress bars of the libraries would tear through ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from wys.errors import WysError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # A file's name may hold bytes that are no text.
            stream.reconfigure(errors="backslashreplace")
    previous = warnings.showwarning
    warnings.showwarning = show_warning
    try:
        with tidy_end():
            parse(command, arguments)()
    except WysError as error:
        print(f"wys: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        from wys.devices import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        has = {option for action in actions_of(command) for option in action.option_strings}
        cure = (
            "try --dtype fp16, a smaller --edit-size, --offload model or --vae-tiling"
            if "--edit-size" in has
            else "end other programs, or ask for less at once"
        )
        print(f"wys: the device is out of memory; {cure}.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise  # `main` knows what to do.
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"wys: {error.strerror or error}{where}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wys: interrupted", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = previous
    return 0


if __name__ == "__main__":
    sys.exit(main())
