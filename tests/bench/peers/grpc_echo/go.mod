module tidegate.dev/bench/grpc_echo

go 1.22
