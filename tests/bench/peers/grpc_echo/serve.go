package main

import (
	"bufio"
	"encoding/binary"
	"log"
	"net"
)

// serve answers every stream that ends: no header is ever decoded, for the answer is the same.
func serve(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go answerAll(connection)
	}
}

func answerAll(connection net.Conn) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 1<<16)
	if _, err := reader.Discard(len(preface)); err != nil {
		return
	}
	block := appendLiteral([]byte{0x88}, "content-type", "application/grpc")
	trailers := appendLiteral(nil, "grpc-status", "0")
	bodies := map[uint32][]byte{}
	out := appendGreeting(nil)
	var head [9]byte
	buffer := make([]byte, 1<<14)
	received, room := 0, 65535
	var waiting [][]byte // answers that the client's window has no room for
	for {
		one, err := readFrame(reader, &head, buffer)
		if err != nil {
			return
		}
		switch one.kind {
		case frameData:
			received += len(one.payload)
			body := append(bodies[one.stream], one.payload...)
			if one.flags&flagEnd == 0 {
				bodies[one.stream] = body
				break
			}
			delete(bodies, one.stream)
			answer := appendHead(nil, len(block), frameHeaders, flagEndHeaders, one.stream)
			answer = append(answer, block...)
			for at := 0; at < len(body); at += 1 << 14 {
				part := body[at:min(at+1<<14, len(body))]
				answer = appendHead(answer, len(part), frameData, 0, one.stream)
				answer = append(answer, part...)
			}
			answer = appendHead(answer, len(trailers), frameHeaders, flagEndHeaders|flagEnd, one.stream)
			waiting = append(waiting, append(answer, trailers...))
		case frameWindow:
			if one.stream == 0 {
				room += int(binary.BigEndian.Uint32(one.payload))
			}
		case frameReset:
			delete(bodies, one.stream)
		case frameSettings:
			if one.flags&flagAck == 0 {
				out = appendHead(out, 0, frameSettings, flagAck, 0)
			}
		case framePing:
			if one.flags&flagAck == 0 {
				out = appendHead(out, 8, framePing, flagAck, 0)
				out = append(out, one.payload...)
			}
		}
		for len(waiting) > 0 && len(waiting[0]) <= room {
			room -= len(waiting[0]) // a little too careful: heads do not count
			room += 27 + len(block) + len(trailers)
			out = append(out, waiting[0]...)
			waiting = waiting[1:]
		}
		if reader.Buffered() == 0 && len(out) > 0 {
			if received > 0 {
				out = appendWindow(out, 0, received)
				received = 0
			}
			if _, err := connection.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}
