// Command grpc_echo is both ends of the gRPC benchmark: a worker that answers every message with
// itself, as cheaply as Go can, and a load generator whose header blocks differ per request.
//
//	grpc_echo serve ADDRESS
//	grpc_echo load ADDRESS CONNECTIONS STREAMS SECONDS [same]
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const (
	frameData, frameHeaders, frameReset, frameSettings = 0, 1, 3, 4
	framePing, frameGoaway, frameWindow                = 6, 7, 8
	flagEnd, flagAck, flagEndHeaders                   = 1, 1, 4
	preface                                            = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	window                                             = 1 << 30
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

// readFrame reads one frame into buffer, which must hold 16 KiB.
func readFrame(from io.Reader, head *[9]byte, buffer []byte) (frame, error) {
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return frame{}, err
	}
	size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if size > len(buffer) {
		return frame{}, fmt.Errorf("a frame of %d bytes", size)
	}
	if _, err := io.ReadFull(from, buffer[:size]); err != nil {
		return frame{}, err
	}
	stream := binary.BigEndian.Uint32(head[5:]) & 0x7fffffff
	return frame{head[3], head[4], stream, buffer[:size]}, nil
}

func appendHead(to []byte, size int, kind, flags byte, stream uint32) []byte {
	to = append(to, byte(size>>16), byte(size>>8), byte(size), kind, flags)
	return binary.BigEndian.AppendUint32(to, stream)
}

func appendWindow(to []byte, stream uint32, size int) []byte {
	to = appendHead(to, 4, frameWindow, 0, stream)
	return binary.BigEndian.AppendUint32(to, uint32(size))
}

func appendGreeting(to []byte) []byte {
	to = appendHead(to, 12, frameSettings, 0, 0)
	to = append(to, 0, 4)
	to = binary.BigEndian.AppendUint32(to, window) // INITIAL_WINDOW_SIZE
	to = append(to, 0, 3)
	to = binary.BigEndian.AppendUint32(to, 1<<20) // MAX_CONCURRENT_STREAMS
	return appendWindow(to, 0, window-65535)
}

// appendLiteral adds a field without indexing; both parts are shorter than 127 bytes.
func appendLiteral(to []byte, name, value string) []byte {
	to = append(to, 0, byte(len(name)))
	to = append(to, name...)
	to = append(to, byte(len(value)))
	return append(to, value...)
}

func main() {
	if len(os.Args) >= 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	if len(os.Args) >= 6 && os.Args[1] == "load" {
		load(os.Args[2], os.Args[3:])
		return
	}
	fmt.Fprintln(os.Stderr, "grpc_echo serve ADDRESS | load ADDRESS CONNECTIONS STREAMS SECONDS [same]")
	os.Exit(2)
}
