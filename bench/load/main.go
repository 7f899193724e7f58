// Command load delivers signed Stripe events to a webhook endpoint, and tells as JSON how that
// went.
//
// With -rate it is open-loop: an event is due at its moment, whether or not those before it have
// been answered. Its time is counted from that moment. What no connection was free for then is not
// sent, and is counted. Without -rate each connection sends its next event when it has the answer
// to the last.
//
// The signing secret is read from LOAD_SECRET.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	var o load.Options
	flag.StringVar(&o.URL, "url", "", "address of the endpoint")
	flag.IntVar(&o.Connections, "connections", 64, "how many requests are under way at most")
	flag.DurationVar(&o.During, "for", 10*time.Second, "how long")
	flag.Float64Var(&o.Rate, "rate", 0, "events a second; 0 for as many as are answered")
	flag.IntVar(&o.Events, "events", 0, "stop after so many; 0 for no end but that of -for")
	flag.IntVar(&o.Customers, "customers", 50, "how many customers the events are about, in turn")
	flag.StringVar(&o.Type, "type", "", "type of the events; none for that of a subscription that has changed")
	flag.StringVar(&o.Prefix, "prefix", "load", "begins the ids of the events; letters and digits")
	flag.DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long an answer is waited for")
	flag.Parse()
	o.Secret = os.Getenv("LOAD_SECRET")
	switch {
	case o.URL == "":
		return fmt.Errorf("-url is missing")
	case o.Secret == "":
		return fmt.Errorf("LOAD_SECRET is not set: nothing can be signed")
	case o.Connections < 1 || o.Customers < 1 || o.During <= 0 || o.Rate < 0:
		return fmt.Errorf("-connections, -customers and -for are to be positive, and -rate is not to be negative")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	report, err := load.Deliver(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}
