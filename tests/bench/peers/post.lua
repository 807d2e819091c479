-- wrk sends the bench's request; TIDEGATE_BENCH_BODY names the file with its body, and
-- TIDEGATE_BENCH_HEADERS has a "name: value" on each line.
local file = assert(io.open(os.getenv("TIDEGATE_BENCH_BODY"), "rb"))
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
for name, value in (os.getenv("TIDEGATE_BENCH_HEADERS") or ""):gmatch("([^\n:]+): ([^\n]+)") do
  wrk.headers[name] = value
end
if os.getenv("TIDEGATE_BENCH_VARY") then
  local number = 0
  request = function()
    number = number + 1
    wrk.headers["x-request-id"] = "bench-" .. number
    return wrk.format()
  end
end
