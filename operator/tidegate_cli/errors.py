"""What can go wrong for a user of the command line.

CommandError: told in one line on stderr, exit code 1
├── InputError: a value on the command line or in a file does not fit
├── RefusedError: the object's state does not allow what was asked
└── ServerError: the server refused, or nobody answered
    ├── NotFoundError: there is no such object
    └── ConflictError: somebody changed the object meanwhile
"""


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do."""


class InputError(CommandError):
    """A value on the command line does not fit the model's input."""


class RefusedError(CommandError):
    """The object's state does not allow it."""


class ServerError(CommandError):
    """The server refused, or there is none at this address."""


class NotFoundError(ServerError):
    """There is no such object."""


class ConflictError(ServerError):
    """Somebody changed the object meanwhile."""
