"""What each feature costs: our router with one feature at a time, beside itself without."""

import statistics

from tidegate_e2e.routerbench import peers, table
from tidegate_e2e.routerbench.figures import Book, Json, spread
from tidegate_e2e.routerbench.load import Target, wrk
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.peers import Router
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.table import Worker


def rows(bench: Bench, plan: Plan, book: Book) -> None:
    """Measure the CPU of a request with each feature, the plain router in every round."""
    stub, ports = peers.stub(bench)
    body = bench.folder / "body.json"
    body.write_bytes(peers.BODY)
    workers = [Worker(http=port) for port in ports]
    row: dict[str, Json] = {}
    routers: dict[str, tuple[Router, Target]] = {}
    for name in table.features():
        turned_on = table.feature(name)
        try:
            router = peers.ours(bench, workers, turned_on=turned_on)
        except RuntimeError as error:
            row[name] = {"not_measured": str(error).splitlines()[0]}
            continue
        target = Target(router.port, router.path, body, turned_on.headers, turned_on.vary)
        routers[name] = router, target
    cost_us: dict[str, list[float]] = {name: [] for name in routers}
    for _ in range(plan.rounds):
        for name, (router, target) in routers.items():
            found = wrk(target, 32, plan.seconds, stub, router.program)
            cost_us[name].append(found.router_cpu_us or 0.0)
            print(f"bench: {name}: {found.router_cpu_us:.1f} us CPU", flush=True)
    plain_us = statistics.median(cost_us[table.PLAIN.name])
    for name, values in cost_us.items():
        added_us = [value - plain_us for value in values]
        row[name] = {
            "about": table.feature(name).about,
            "router_cpu_us": spread(values),
            "added_us": spread(added_us),
        }
    book.row("feature_costs", row)
