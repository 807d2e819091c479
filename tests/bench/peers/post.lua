-- wrk sends the bench's request; TIDEGATE_BENCH_BODY names the file with its body.
local file = assert(io.open(os.getenv("TIDEGATE_BENCH_BODY"), "rb"))
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
