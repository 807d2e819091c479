"""The decision core of every lane: which worker a request goes to, and what follows its end.

A lane (HTTP, gRPC) drives one request like this; all calls are synchronous and cheap, `now_s` is
the lane's monotonic clock:

    route = dispatcher.plan(Ask(model=..., ...), now_s)        # Route | Refusal
    while True:
        attempt = dispatcher.next_attempt(route, now_s)        # Attempt | Wait | Refusal
        # Wait: dispatcher.park(route, wake), await the wake-up or wait.until_s, unpark, ask again.
        # tidegate_router.lane.acquire() does these two lines for both lanes.
        ... send to attempt.address:attempt.http_port / grpc_port within attempt.timeout_s ...
        step = dispatcher.settle(route, attempt, Ending(...), now_s)   # Step | Refusal
        dispatcher.release(attempt, now_s)                     # once the *worker* has stopped
        if step is not Step.RETRY: break
    dispatcher.finish(route, now_s)                            # exactly once, in a finally

Rules for a lane
* `faults.judge_http` / `judge_grpc` turn a worker's answer into Ending.outcome. Transport faults:
  no connection -> UNREACHABLE; broken after the first byte sent -> LOST; attempt.timeout_s over ->
  TIMEOUT; client left -> CANCELLED.
* `settle` once per attempt. FORWARD: pass on the worker's answer as it is. A Refusal: answer
  refusal.http_status / grpc_code with header names.HEADER_DROPPED_REASON. RETRY: go round.
* A stream calls `route.answered = True` before its first byte to the client: nothing is retried
  from then on.
* `release` frees the slot and is idempotent. It comes later than `settle` when the worker goes on
  computing after the client left or the attempt's time was over (HTTP cannot cancel).
* Answers carry HEADER_WORKER (attempt.worker_name), HEADER_REVISION (attempt.revision) and
  HEADER_ATTEMPTS (route.attempts). `explain(route, attempt)` gives HEADER_EXPLAIN's value.
* Call.INQUIRY (metadata, config, statistics) takes no slot and counts nothing, else it is the same.
"""
