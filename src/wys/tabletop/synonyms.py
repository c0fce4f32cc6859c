"""Other words for what the training sentences ask for, as people might put it.

Most kinds of edits are told by the property that is named ("blue", "a cube", "rubber"). Removals
and changes of size are told by their verb alone, of which `phrasings.py` has some dozens.
"""

from __future__ import annotations

_AWAY = (
    *("abolish", "annihilate", "axe", "bin", "black out", "blank out", "blot out", "boot out"),
    *("brush away", "bury", "cancel", "carry away", "carry off", "cast out", "chuck", "chuck out"),
    *("clean away", "crop out", "cross out", "cut away", "deduct", "demolish", "destroy"),
    *("detach", "dismiss", "dispel", "dump", "efface", "eject", "empty out", "evict", "expel"),
    *("expunge", "extract", "filter out", "free the picture of", "get shot of", "jettison", "junk"),
    *("kick out", "kill", "knock out", "mask out", "move out", "nuke", "obliterate", "oust"),
    *("paint over", "photoshop out", "pick out", "pluck out", "purge", "push out", "reject"),
    *("retouch out", "rip out", "root out", "rub out", "sack", "scrape off", "scratch", "scrub"),
    *("send away", "spirit away", "strike", "strike out", "subtract", "suppress", "sweep away"),
    *("take off", "tear out", "toss", "toss out", "trash", "uninstall", "unmake", "vaporize"),
    *("wash away", "weed out", "whisk away", "withdraw", "zap"),
)
_GROW = (
    *("amplify", "augment", "balloon", "beef up", "blow out", "boost", "broaden", "build up"),
    *("bulk up", "dilate", "elongate", "embiggen", "escalate", "extend", "fatten", "heighten"),
    *("intensify", "maximize", "multiply", "puff up", "pump up", "size up", "spread", "supersize"),
    *("swell", "swell up", "thicken", "triple", "widen"),
)
_SHRINK = (
    *("abbreviate", "abridge", "compact", "condense", "cut down", "deflate", "diminish"),
    *("dwarf", "dwindle", "lessen", "miniaturize", "minimize", "narrow", "pare down", "scrunch"),
    *("shorten", "size down", "slim", "slim down", "thin", "tighten", "trim", "truncate"),
    *("whittle down",),
)

SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("remove", "delete", "get rid of", "erase", "take away", "eliminate", "clear", "discard"),
        _AWAY,
    ),
    **dict.fromkeys(("enlarge", "expand", "magnify", "upsize", "grow"), _GROW),
    **dict.fromkeys(("shrink", "minify", "downsize", "contract", "compress"), _SHRINK),
    "bigger": ("taller", "greater", "huger", "more massive", "more spacious", "grander"),
    "huge": ("enormous", "gigantic", "giant", "massive", "oversized", "immense", "vast"),
    "smaller": ("tinier", "littler", "shorter", "slighter", "lesser", "more compact"),
    "tiny": ("miniature", "mini", "minute", "wee", "diminutive", "petite", "microscopic"),
    "disappear": ("depart", "dissolve", "evaporate", "fade away", "vaporize", "cease to exist"),
    "gone": ("absent", "missing", "erased", "deleted", "out of sight", "history", "out of here"),
    "the scene": ("the view", "the shot", "the frame", "the table", "the world", "this"),
    "the picture": ("the frame", "the shot", "the photograph", "the view", "this"),
}
"""A word or phrase of the training sentences -> what can stand for it, in training only. None is a
word that the held-out sentences alone have."""
