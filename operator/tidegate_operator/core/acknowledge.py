"""Which routers have applied which table (operator.md section 8).

Router set = ready endpoints of the router Service plus those that left it less than 10 s ago.
Acknowledged(n) = every member applied sequence >= n of this pool's UID. Applied sequences only
grow, so an old scrape is as good a proof as a new one; a router that runs on its snapshot counts
as unsynced. Without routers a table is effective at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_operator.core.observation import RouterMember

UNREACHABLE_AFTER_S = 10.0
_LEFT_FOR_S = 10.0
_NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The router set's progress for one pool."""

    members: int
    applied: int  # lowest sequence that every member applied; -1: some applied none
    behind: tuple[str, ...] = ()  # routers at that lowest sequence
    unreachable: tuple[str, ...] = ()  # routers silent for 10 s

    def acknowledged(self, sequence: int) -> bool:
        """Whether every live router has applied table `sequence` or a newer one."""
        return not self.members or self.applied >= sequence


def acknowledge(routers: Sequence[RouterMember], pool_uid: str, now_s: float) -> Acknowledgement:
    """Return what the routers' scrapes prove about one pool's tables."""
    members = [m for m in routers if m.left_s_ago is None or m.left_s_ago < _LEFT_FOR_S]
    applied = {member.name: _applied(member, pool_uid) for member in members}
    lowest = min(applied.values(), default=_NOTHING)
    return Acknowledgement(
        members=len(members),
        applied=lowest,
        behind=tuple(sorted(name for name, value in applied.items() if value == lowest)),
        unreachable=tuple(sorted(m.name for m in members if _is_silent(m, now_s))),
    )


def _applied(member: RouterMember, pool_uid: str) -> int:
    if member.state is None or not member.state.synced:
        return _NOTHING
    found = [table.applied_sequence for table in member.state.tables if table.uid == pool_uid]
    return max(found, default=_NOTHING)


def _is_silent(member: RouterMember, now_s: float) -> bool:
    heard_s = member.scraped_s if member.scraped_s is not None else member.seen_s
    return bool(member.error) and now_s - heard_s >= UNREACHABLE_AFTER_S
