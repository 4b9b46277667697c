"""What we raise: every message gives the rule, the value, the place and the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of others says, for a message of ours; its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class OpenGritError(Exception):
    """The base of every error a user can cause and fix; the command line exits with 2 on it."""


class RecipeError(OpenGritError):
    """A recipe, or a command's options, ask for something impossible."""


class RewardError(OpenGritError):
    """A reward raises, or returns something else than it states."""


class JudgeError(OpenGritError):
    """A judge of the user's own raises, or returns something else than an opinion."""


class DataError(OpenGritError):
    """A row, a file or a folder of data is not what its format says."""


class ImageError(OpenGritError):
    """A picture cannot be opened safely."""


class ModelError(OpenGritError):
    """A model or its processor cannot be loaded, or does not fit what is asked of it."""


class RunError(OpenGritError):
    """A run folder is missing, unreadable, or belongs to another recipe."""


class Stopped(Exception):
    """A training was stopped by a signal and has saved where it is; the command line exits with `exit_code`."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
