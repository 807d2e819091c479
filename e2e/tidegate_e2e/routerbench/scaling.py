"""Two router processes under the same CPU quota each, against one."""

from contextlib import ExitStack

from tidegate_e2e.routerbench import peers
from tidegate_e2e.routerbench.figures import Book, Json, ratios, spread
from tidegate_e2e.routerbench.load import Target, wrk_at_once
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.quota import limited
from tidegate_e2e.routerbench.table import Worker

SHARE = 0.25  # of one core


def rows(bench: Bench, plan: Plan, book: Book) -> None:
    """Measure one, two, one in each round; the same number of connections to each router."""
    _, ports = peers.stub(bench)
    body = bench.folder / "body.json"
    body.write_bytes(peers.BODY)
    routers = [peers.ours(bench, [Worker(http=port) for port in ports]) for _ in range(2)]
    targets = [Target(router.port, router.path, body) for router in routers]
    one: list[float] = []
    two: list[float] = []
    with ExitStack() as stack:
        for number, router in enumerate(routers):
            pid = router.program.pid if router.program else 0
            stack.enter_context(limited(pid, SHARE, str(number)))
        for _ in range(plan.rounds):
            before = wrk_at_once(targets[:1], 16, plan.seconds)
            both = wrk_at_once(targets, 16, plan.seconds)
            after = wrk_at_once(targets[1:], 16, plan.seconds)
            one.append((before + after) / 2)
            two.append(both)
            print(f"bench: two processes {both:,.0f}/s, one {one[-1]:,.0f}/s", flush=True)
    found: dict[str, Json] = {"one": spread(one), "two": spread(two), "cpu_quota_ratio": SHARE}
    book.row("two_processes", found)
    book.ratio("two_process_ratio", ratios(two, one))
