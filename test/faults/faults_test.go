//go:build faults && linux

package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Everything that can break is broken at random moments while people go on. When all is quiet
// again, every delivery that was answered is accounted for, the three systems agree about
// everybody, every caller was told the truth, and the programs are as light as they were.
//
// FAULTS_FOR says how long, FAULTS_SEED plays the same script again, FAULTS_ONLY has only those
// faults happen in whose name it is.
func TestFaults(t *testing.T) { // alone
	lasts, seed := lengthOf(t), seedOf(t)
	s := newStage(t, seed, lasts)
	dice := rand.New(rand.NewPCG(seed, 0x64696365))
	d := &director{stage: s, all: s.breakages(), only: os.Getenv("FAULTS_ONLY"), counts: map[faultID]int{}}
	script := d.script(dice, lasts)

	before := s.settledLevels(nil)
	t.Log("at the start:", before)
	ctx, stop := context.WithCancel(t.Context())
	lived := make(chan struct{})
	go func() { defer close(lived); s.crowd.live(ctx) }()
	began := time.Now()
	d.direct(script, lasts)
	stop()
	<-lived
	t.Logf("everybody was told what became of their wishes after %s", time.Since(began).Round(time.Second))

	v := s.judge()
	s.everybodyLeaves()
	after := s.settledLevels(&before)
	t.Log("in the end:", after)
	v.add(s.judge())
	table := v.table(d)
	t.Log("\n" + table)
	for _, fault := range v.faults() {
		t.Error(fault)
	}
	if !t.Failed() && os.Getenv("FAULTS_REPORT") == "write" && d.only == "" {
		s.must(writeReport(table, lasts, seed))
	}
}

func lengthOf(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("FAULTS_FOR")
	if text == "" {
		return 5 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Minute {
		t.Fatal("FAULTS_FOR is not a duration of at least a minute, such as 5m")
	}
	return d
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("FAULTS_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("FAULTS_SEED: %v", err)
		}
	}
	t.Logf("FAULTS_SEED=%d", seed)
	fmt.Printf("FAULTS_SEED=%d\n", seed) // known even where the test is cut off
	return seed
}
