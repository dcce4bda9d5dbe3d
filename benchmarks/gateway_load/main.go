// The gateway bench's two ends, fast enough not to be what is measured:
//
//	gatewayload upstream -port 0            a fake engine in vLLM's dialect (token ids, usage, <think> tags)
//	gatewayload load -url U -mode unary ... a client; prints one JSON object
//
// All traffic is loopback. The number of tokens is the request's max_tokens, tokens per second its seed (0: no pacing),
// because the gateway's list of allowed fields has no others.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: gatewayload upstream|load [flags]")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "upstream":
		port := flags.Int("port", 0, "0 takes a free one and prints it")
		flags.Parse(os.Args[2:])
		upstream(*port)
	case "load":
		var l loader
		flags.StringVar(&l.url, "url", "", "base address, without /v1")
		flags.StringVar(&l.path, "path", "/v1/chat/completions", "route")
		flags.StringVar(&l.key, "key", "", "API key")
		flags.StringVar(&l.model, "model", "bench", "model name")
		flags.StringVar(&l.mode, "mode", "unary", "unary or stream")
		flags.IntVar(&l.concurrency, "c", 1, "connections")
		flags.IntVar(&l.requests, "n", 1000, "requests in all")
		flags.IntVar(&l.tokens, "tokens", 64, "tokens of one answer")
		flags.IntVar(&l.rate, "rate", 0, "tokens per second of a stream, 0: as fast as it goes")
		flags.Float64Var(&l.ramp, "ramp", 0, "seconds over which the connections start")
		flags.Parse(os.Args[2:])
		l.run()
	default:
		os.Exit(2)
	}
}
