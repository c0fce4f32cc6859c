"""`wys completion`: what a shell offers when TAB is pressed, made from the real command lines.

The scripts hold every command and option as they are in this version and start no Python, so that
they answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """With its dashes."""
    help: str
    takes: bool
    """Whether a value follows."""
    words: tuple[str, ...]
    """The values it takes; where there are none, a value may be a file."""


@dataclass(frozen=True)
class Line:
    """One command: the words after `wys`, and what may follow them."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    positional: tuple[str, ...]
    """The values that a positional argument takes; where there are none, it may be a file."""


def completion(
    shell: Annotated[tyro.conf.Positional[Shell], tyro.conf.arg(metavar="{bash,zsh,fish}")],
) -> None:
    """Print a completion script: commands, options and their values at a press of TAB.

    For this shell alone, or, in the shell's start-up file, for every one:
      bash  eval "$(wys completion bash)"
      zsh   eval "$(wys completion zsh)", after compinit
      fish  wys completion fish | source

    Args:
        shell: The shell that will read it.
    """
    write = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell]
    print(write(command_lines()), end="")


def command_lines() -> tuple[Line, ...]:
    """All commands with their options, from the parsers that read them."""
    from wys.apps import cli

    lines = []
    for command in cli.COMMANDS:
        options, positional = [], []
        for action in cli.actions_of(command):
            words = _listed(action.metavar)
            if not action.option_strings:
                positional += words
                continue
            help_text = _first_sentence(action.help or "")
            options.append(
                Option(action.option_strings[-1], help_text, action.nargs != 0, tuple(words))
            )
        lines.append(
            Line(tuple(command.words.split()), command.help, tuple(options), tuple(positional))
        )
    return tuple(lines)


def _listed(metavar: str | tuple[str, ...] | None) -> list[str]:
    """The values that a metavar such as {auto,fp32} or {train,orbit}|FILE lists."""
    listed = re.search(r"\{([^}]*)\}", metavar) if isinstance(metavar, str) else None
    return listed[1].split(",") if listed else []


def _first_sentence(text: str) -> str:
    """A help text without its default, up to its first full stop."""
    text = re.sub(r"\s*\((default|required|repeatable)[^)]*\)\s*$", "", text)
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0].strip()


def _families(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines by their first word."""
    families: dict[str, list[Line]] = {}
    for line in lines:
        families.setdefault(line.words[0], []).append(line)
    return families


def _about(family: Sequence[Line]) -> str:
    """What the first word of a family is for."""
    if len(family[0].words) == 1:
        return family[0].help
    return f"{', '.join(line.words[1] for line in family)}"


def bash_script(lines: Sequence[Line]) -> str:
    """A function that fills COMPREPLY; where it finds nothing, bash offers files."""
    families = _families(lines)
    after = {"": [*families, "--help", "--version"]}
    after |= {
        first: [line.words[1] for line in family]
        for first, family in families.items()
        if len(family[0].words) > 1
    }
    options: dict[str, list[str]] = {}
    values: dict[str, list[str]] = {}
    for line in lines:
        words = " ".join(line.words)
        options[words] = [option.name for option in line.options]
        values |= {f"{words} {o.name}": list(o.words) or ["FILE"] for o in line.options if o.takes}
        if line.positional:
            values[words] = list(line.positional)
    return f"""# Completion of wys for bash; made by 'wys completion bash'.
_wys_commands() {{
{_case(after)}
}}
_wys_options() {{
{_case(options)}
}}
_wys_values() {{
{_case(values)}
}}
_wys() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} line="" words i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    # The first words name the command, as long as more may follow them.
    [[ -n $(_wys_commands "$line") ]] || break
    line="${{line:+$line }}${{COMP_WORDS[i]}}"
  done
  words=$(_wys_commands "$line")
  if [[ -z $words && $cur == -* ]]; then
    words=$(_wys_options "$line")
  elif [[ -z $words && $before == --* ]]; then
    words=$(_wys_values "$line $before")
  fi
  # After a value or a flag comes a positional argument.
  [[ -n $words ]] || words=$(_wys_values "$line")
  [[ $words == FILE ]] || COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _wys wys
"""


def _case(table: dict[str, list[str]]) -> str:
    """The body of a shell function that answers "$1" from a table."""
    rows = [
        f"    {_quoted(key)}) echo {_quoted(' '.join(words))} ;;" for key, words in table.items()
    ]
    return "\n".join(['  case "$1" in', *rows, "  esac"])


def zsh_script(lines: Sequence[Line]) -> str:
    """A function for compdef that leaves the options to zsh's own _arguments."""
    families = _families(lines)
    first = [_quoted(f"{name}:{_about(f)}") for name, f in families.items()]
    branches = []
    for name, family in families.items():
        if len(family[0].words) == 1:
            branches.append(f"    {name})\n{_zsh_arguments(family[0], '      ')}\n      ;;")
            continue
        inner = [_quoted(f"{line.words[1]}:{line.help}") for line in family]
        cases = "\n".join(
            f"        {line.words[1]})\n{_zsh_arguments(line, '          ')}\n          ;;"
            for line in family
        )
        branches.append(
            f"""    {name})
      if ((CURRENT == 2)); then
        local -a inner=({" ".join(inner)})
        _describe command inner
        return
      fi
      shift words
      ((CURRENT--))
      case ${{words[1]}} in
{cases}
      esac
      ;;"""
        )
    body = "\n".join(branches)
    return f"""#compdef wys
# Completion of wys for zsh; made by 'wys completion zsh'.
_wys() {{
  if ((CURRENT == 2)); then
    local -a commands=({" ".join(first)})
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case ${{words[1]}} in
{body}
  esac
}}
compdef _wys wys
"""


def _zsh_arguments(line: Line, indent: str) -> str:
    """The call of _arguments for one command."""

    def told(text: str) -> str:
        return re.sub(r"([\[\]:\\])", r"\\\1", text)

    specs = []
    for option in line.options:
        value = f"({' '.join(option.words)})" if option.words else "_files"
        # Options may be repeated: some are meant to be.
        follows = f":{option.name[2:]}:{value}" if option.takes else ""
        specs.append(_quoted(f"*{option.name}[{told(option.help)}]{follows}"))
    place = f"({' '.join(line.positional)})" if line.positional else "_files"
    specs.append(_quoted(f"*:argument:{place}"))
    return f"{indent}_arguments " + f" \\\n{indent}  ".join(specs)


def fish_script(lines: Sequence[Line]) -> str:
    """One `complete` for each command and option."""
    rows = [
        "# Completion of wys for fish; made by 'wys completion fish'.",
        "function __wys_at --description 'whether the line begins with these words'",
        "    set -l words (commandline -opc)",
        "    set -l wanted wys $argv",
        "    set -l most (count $wanted)",
        '    test (count $words) -ge $most; and test "$words[1..$most]" = "$wanted"',
        "end",
        "function __wys_next --description 'whether just these words come before'",
        "    __wys_at $argv; and test (count (commandline -opc)) -eq (math 1 + (count $argv))",
        "end",
    ]
    for first, family in _families(lines).items():
        rows.append(_fish("__wys_next", f"-f -a {first}", _about(family)))
        for line in family:
            at = f"__wys_at {' '.join(line.words)}"
            if len(line.words) > 1:
                rows.append(_fish(f"__wys_next {first}", f"-f -a {line.words[1]}", line.help))
            for option in line.options:
                value = " -x -a " + _quoted(" ".join(option.words)) if option.words else " -r -F"
                name = f"-l {option.name[2:]}{value if option.takes else ''}"
                rows.append(_fish(at, name, option.help))
            if line.positional:
                rows.append(_fish(at, "-f -a " + _quoted(" ".join(line.positional)), ""))
    return "\n".join(rows) + "\n"


def _fish(condition: str, what: str, about: str) -> str:
    return f"complete -c wys -n {_quoted(condition)} {what} -d {_quoted(about)}"


def _quoted(text: str) -> str:
    """Text in single quotes, the same in all three shells where it has none inside."""
    return "'" + text.replace("'", "’") + "'"
