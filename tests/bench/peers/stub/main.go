// Workers for the bench: each port has a number of slots and a service time, and keeps a queue
// as Triton does. Every path answers alike; a body is read whole before its work begins.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

type worker struct {
	name        string
	slots       chan struct{}
	service     time.Duration
	exponential bool
	answer      []byte
}

func (w *worker) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	if _, err := io.Copy(io.Discard, in.Body); err != nil {
		return
	}
	if in.Method == http.MethodPost && w.service > 0 {
		w.slots <- struct{}{}
		time.Sleep(w.duration())
		<-w.slots
	}
	out.Header().Set("Content-Type", "application/json")
	out.Header().Set("Content-Length", strconv.Itoa(len(w.answer)))
	out.Header().Set("x-stub", w.name)
	_, _ = out.Write(w.answer)
}

func (w *worker) duration() time.Duration {
	if w.exponential {
		return time.Duration(float64(w.service) * rand.ExpFloat64())
	}
	return w.service
}

func main() {
	ports := flag.String("ports", "", "ports of 127.0.0.1, comma-separated; a worker each")
	service := flag.Duration("service", 0, "mean service time of a POST")
	slow := flag.Float64("slow", 1, "how many times slower the first worker is")
	slots := flag.Int("slots", 1, "requests at once")
	exponential := flag.Bool("exponential", false, "exponential service times")
	answer := flag.String("answer", "{}", "body of every answer")
	flag.Parse()
	ended := make(chan error)
	for at, port := range strings.Split(*ports, ",") {
		one := &worker{
			name: fmt.Sprintf("w%d", at), slots: make(chan struct{}, *slots),
			service: *service, exponential: *exponential, answer: []byte(*answer),
		}
		if at == 0 {
			one.service = time.Duration(float64(*service) * *slow)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			log.Fatal(err)
		}
		go func() { ended <- http.Serve(listener, one) }()
	}
	log.Fatal(<-ended)
}
