"""What can go wrong for a user of the command line.

CommandError: told in one line on stderr, exit code 1
├── InputError: a value does not fit the model's input
└── ServerError: the server refused, or nobody answered
"""


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do."""


class InputError(CommandError):
    """A value on the command line does not fit the model's input."""


class ServerError(CommandError):
    """The server refused, or there is none at this address."""
