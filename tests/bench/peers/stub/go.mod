module tidegate.dev/bench/stub

go 1.21
