"""Whether a Triton is below the security floor. Pure."""


def below(version: str, floor: str) -> bool:
    """Compare dotted versions number by number; an unreadable version counts as below."""
    return _numbers(version) < _numbers(floor)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    if not all(part.isdigit() for part in parts):
        return ()
    return tuple(int(part) for part in parts)
