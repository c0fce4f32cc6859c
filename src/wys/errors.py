"""What wys raises and warns with. Both carry one sentence that names the thing and the cure."""


class WysError(Exception):
    """Something the user can put right; the command line prints it and exits with code 2."""


class WysWarning(UserWarning):
    """Something was done differently from what was asked; the message says what and where."""
