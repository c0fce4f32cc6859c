"""The editor that a training begins with: what it needs, and that it stays the same one.

Latents and networks of a run fit only the autoencoder and the tokenizer that they were made with.
"""

from hashlib import sha256
from pathlib import Path

from wys.diffusion.loading import HEAD, builtin_directory
from wys.diffusion.refusals import LOCATOR
from wys.errors import WysError
from wys.store import read_header, read_json, write_json
from wys.training.denoiser import NetworkSettings

BEGINNING = "beginning.json"
"""What a run began with, in its folder."""


def start_directory(start: Path | None) -> Path | None:
    """The folder of an editor to train further; `builtin` stands for that of the built-in one."""
    return builtin_directory() if start == Path("builtin") else start


def check_start(network: NetworkSettings, locator: tuple[int, ...], start: Path) -> None:
    """Raises WysError where an editor lacks a part, is cut short, or has another network.

    Args:
        locator: widths of the recipe's locator; an editor may have none.
    """
    for part in ("unet", "text_encoder", "tokenizer", "vae"):
        if not (start / part).is_dir():
            raise WysError(f"{start} is no editor to train further: it has no folder {part}.")
    _check_network(start, "unet", network.channels, network)
    if (start / LOCATOR).is_dir():
        _check_network(start, LOCATOR, locator, network)
    if not (start / HEAD).is_file():
        raise WysError(f"{start} is no editor to train further: it has no {HEAD}.")
    for file in [*sorted(start.glob("*/*.safetensors")), start / HEAD]:
        read_header(file)


def _check_network(
    start: Path, part: str, channels: tuple[int, ...], network: NetworkSettings
) -> None:
    config = read_json(start / part / "config.json")
    wanted = {
        "block_out_channels": list(channels),
        "cross_attention_dim": network.text_width,
        "attention_head_dim": network.heads,
        "norm_num_groups": network.groups,
    }
    for name, value in wanted.items():
        given = config.get(name) if isinstance(config, dict) else None
        if given != value:
            raise WysError(
                f"{start} cannot be trained further with this recipe: its {part} has the {name} "
                f"{given}, not {value}; take an editor that this recipe made, or the --preset that "
                "made it."
            )


def keep_beginning(start: Path | None, out: Path) -> None:
    """Notes in `out` what a run began with.

    Raises:
        WysError: it began with something else.
    """
    given = None if start is None else {str(f.relative_to(start)): _digest(f) for f in _kept(start)}
    path = out / BEGINNING
    if not path.exists():
        write_json(path, given)
    elif read_json(path) != given:
        begun = "from nothing" if read_json(path) is None else "with an editor that is not this one"
        raise WysError(
            f"{out} was begun {begun}, and its networks fit only that; give the --start that it "
            "was begun with, or train in another folder."
        )


def _kept(start: Path) -> list[Path]:
    """The files of what stays as it is: the autoencoder and the tokenizer."""
    parts = (start / "vae", start / "tokenizer")
    return sorted(file for part in parts for file in part.iterdir() if file.is_file())


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()
