"""Errors the IR raises. A message says what is wrong; callers add the user's line and the fix."""


class TracegradError(Exception):
    """Base of every error of the library's own. `code` has a paragraph in docs/errors.md."""

    code = "TG000"
    unexpected = False  # whether code of the library's own has failed, not what it was given


class IRError(TracegradError):
    """Base of every error about a graph."""


class IRTypeError(IRError, TypeError):
    """An op was given inputs or attributes that its type rule refuses."""


class MissingVJPError(IRError, NotImplementedError):
    """A gradient was asked of an op that has none; the message gives the op's reason."""

    code = "TG013"  # see docs/errors.md


class VerifyError(IRError):
    """A graph is not well formed; the message names the node, the pass and the user's line."""


class ParseError(IRError, ValueError):
    """IR text or JSON that cannot be read; the message gives line and column or the JSON path."""
