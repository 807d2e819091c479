package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"
)

// load keeps STREAMS requests in flight on each connection. Each has an id of its own in its
// header block, put into the dynamic table as grpc-go does, unless the last argument is "same".
func load(address string, arguments []string) {
	var numbers [3]int
	for i := range numbers {
		number, err := strconv.Atoi(arguments[i])
		if err != nil || number < 1 {
			log.Fatalf("%q: expected a positive number", arguments[i])
		}
		numbers[i] = number
	}
	same := len(arguments) > 3 && arguments[3] == "same"
	end := time.Now().Add(time.Duration(numbers[2]) * time.Second)
	var group sync.WaitGroup
	all := make([][]time.Duration, numbers[0])
	bad := make([]int, numbers[0])
	began := time.Now()
	for i := range all {
		group.Add(1)
		go func() {
			defer group.Done()
			all[i], bad[i] = drive(address, numbers[1], end, same, i)
		}()
	}
	group.Wait()
	report(all, bad, time.Since(began))
}

func report(all [][]time.Duration, bad []int, took time.Duration) {
	var times []time.Duration
	failures := 0
	for i := range all {
		times = append(times, all[i]...)
		failures += bad[i]
	}
	if len(times) == 0 {
		fmt.Println(`{"requests": 0}`)
		os.Exit(1)
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))].Nanoseconds()) / 1000
	}
	fmt.Printf(`{"requests": %d, "failed": %d, "per_s": %.0f, "p50_us": %.1f, "p99_us": %.1f}`+"\n",
		len(times), failures, float64(len(times))/took.Seconds(), at(0.5), at(0.99))
}

// request returns a ModelInfer message with its prefix.
func request() []byte {
	message := []byte("\x0a\x05bench\x1a\x011\x2a\x0d\x0a\x01X\x12\x05BYTES\x1a\x01\x01\x3a\x05\x01\x00\x00\x00x")
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

type driver struct {
	connection  net.Conn
	out, common []byte
	message     []byte
	next        uint32
	sent        map[uint32]time.Time
	same        bool
	number      int
	count       uint64
}

func (d *driver) send() {
	block := append([]byte(nil), d.common...)
	if !d.same {
		d.count++
		id := fmt.Sprintf("%08x%016x", d.number, d.count)
		block = append(block, 0x40, 12)
		block = append(block, "x-request-id"...)
		block = append(block, byte(len(id)))
		block = append(block, id...)
	}
	d.out = appendHead(d.out, len(block), frameHeaders, flagEndHeaders, d.next)
	d.out = append(d.out, block...)
	d.out = appendHead(d.out, len(d.message), frameData, flagEnd, d.next)
	d.out = append(d.out, d.message...)
	d.sent[d.next] = time.Now()
	d.next += 2
}

func drive(address string, streams int, end time.Time, same bool, number int) ([]time.Duration, int) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	common := []byte{0x83, 0x86}
	common = append(common, 4, 42)
	common = append(common, "/inference.GRPCInferenceService/ModelInfer"...)
	common = append(common, 1, 9)
	common = append(common, "localhost"...)
	common = appendLiteral(common, "content-type", "application/grpc")
	common = appendLiteral(common, "te", "trailers")
	common = appendLiteral(common, "user-agent", "grpc_echo/1")
	d := &driver{
		connection: connection, out: append([]byte(preface), appendGreeting(nil)...), common: common,
		message: request(), next: 1, sent: map[uint32]time.Time{}, same: same, number: number,
	}
	reader := bufio.NewReaderSize(connection, 1<<16)
	for range streams {
		d.send()
	}
	return d.run(reader, end)
}

func (d *driver) run(reader *bufio.Reader, end time.Time) ([]time.Duration, int) {
	var times []time.Duration
	var head [9]byte
	buffer := make([]byte, 1<<14)
	received, bad := 0, 0
	answered := map[uint32]int{}
	for len(d.sent) > 0 {
		if reader.Buffered() == 0 && len(d.out) > 0 {
			if received > 1<<20 {
				d.out = appendWindow(d.out, 0, received)
				received = 0
			}
			if _, err := d.connection.Write(d.out); err != nil {
				return times, bad + len(d.sent)
			}
			d.out = d.out[:0]
		}
		one, err := readFrame(reader, &head, buffer)
		if err != nil {
			return times, bad + len(d.sent)
		}
		over := one.kind == frameReset
		switch one.kind {
		case frameData:
			received += len(one.payload)
			answered[one.stream] += len(one.payload)
			over = one.flags&flagEnd != 0
		case frameHeaders:
			over = one.flags&flagEnd != 0
		case frameSettings:
			if one.flags&flagAck == 0 {
				d.out = appendHead(d.out, 0, frameSettings, flagAck, 0)
			}
		case frameGoaway:
			return times, bad + len(d.sent)
		}
		began, open := d.sent[one.stream]
		if !over || !open {
			continue
		}
		if answered[one.stream] != len(d.message) {
			bad++
		}
		delete(answered, one.stream)
		delete(d.sent, one.stream)
		now := time.Now()
		times = append(times, now.Sub(began))
		if now.Before(end) {
			d.send()
		}
	}
	return times, bad
}
