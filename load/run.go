package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The application's goal for the service.
const (
	goalRate = 1_000.0 // calls a second
	goalP95  = 200 * time.Millisecond
	// The tolerance of the rate: ghz itself starts a little late, and ends a little early.
	paceSlack = 0.01
)

// kind is one of the runs. The configuration of its ghz is Name.json in this directory.
type kind struct {
	Name, Title, What string
	batched           bool
	paced             bool // runs at the application's rate, and must meet its goal
	cold              bool // all cached facts are invalidated first
	restarted         bool // permcached is restarted first
	mixed             bool // shares are granted and revoked meanwhile
}

var kinds = []kind{
	{Name: "cold", Title: "Cold", What: "Nothing is remembered at the start, in memory or in Redis: each question reads what it needs from MongoDB.", paced: true, cold: true},
	{Name: "restart", Title: "After a restart", What: "permcached has just been started: its memory is empty, and Redis has what was read before.", paced: true, restarted: true},
	{Name: "warm", Title: "Warm", What: "The same questions again, at the application’s goal.", paced: true},
	{Name: "mixed", Title: "With revocations", What: "The same pace, while shares of other files are granted and revoked, and asked about at once.", paced: true, mixed: true},
	{Name: "fast", Title: "Flat out", What: "No pace: 64 questions at a time, the next as soon as one is answered. ghz and all servers share this machine, so this is no limit of permcached’s."},
	{Name: "batch", Title: "Batches", What: "A thousand questions a call.", batched: true},
}

// result is a run with its results.
type result struct {
	kind
	ghz      ghzReport
	sampled  []counters
	expected tally // nil if other callers use the server too
	got      tally
	delays   []delay
	Problems []string
}

// ghzReport holds the fields of ghz's output with --format json that this program reads. Durations are in nanoseconds.
type ghzReport struct {
	Count    uint64
	Total    time.Duration
	Rps      float64
	Statuses map[string]uint64 `json:"statusCodeDistribution"`
	Errors   map[string]uint64 `json:"errorDistribution"`
	Details  []struct {
		Timestamp time.Time
		Latency   time.Duration
		Status    string
	}
}

// target is the server under test.
type target struct {
	ghz, configurations string // the program, and the directory with its configurations
	address             string
	token, admin        string
	questions           *questions
	stack               *stack // nil with -server
}

// run does one run and makes every possible check of it. An error is a problem of the run too.
func (t *target) run(ctx context.Context, kind kind, directory string) *result {
	r := &result{kind: kind}
	if err := t.measure(ctx, r, directory); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if err := t.questions.verify(ctx, t.address, t.token); err != nil {
		r.Problems = append(r.Problems, "Asked one by one after the run: "+err.Error())
	}
	r.judge()
	return r
}

// measure runs ghz, and meanwhile samples the server's counters and, in the mixed run, grants and revokes shares.
func (t *target) measure(ctx context.Context, r *result, directory string) error {
	if r.cold {
		if err := t.forget(ctx); err != nil {
			return err
		}
	}
	if r.restarted {
		if err := t.stack.restart(ctx, t.questions.permcached); err != nil {
			return err
		}
	}
	output := filepath.Join(directory, r.Name+".json")
	if t.stack == nil {
		return t.callGhz(ctx, r.kind, output, &r.ghz)
	}
	before, err := readCounters(ctx, t.address)
	if err != nil {
		return err
	}
	meanwhile, over := context.WithCancel(ctx)
	defer over()
	sampled, revoked := make(chan []counters, 1), make(chan *revoker, 1)
	go func() { sampled <- watch(meanwhile, t.address) }()
	if r.mixed {
		go func() { revoked <- revoke(meanwhile, t) }()
	}
	err = t.callGhz(ctx, r.kind, output, &r.ghz)
	over()
	others := tally{}
	if r.mixed {
		revoker := <-revoked
		r.delays, others = revoker.delays, revoker.answers
		r.Problems = append(r.Problems, revoker.problems...)
	}
	if err != nil {
		return err
	}
	after, err := readCounters(ctx, t.address)
	if err != nil {
		return err
	}
	r.sampled = append(append([]counters{before}, <-sampled...), after)
	r.got, r.expected = after.decisions.since(before.decisions), t.questions.expect(r.ghz.Count, r.batched)
	for answer, count := range others {
		r.expected[answer] += count
	}
	return nil
}

// forget makes the server, and every instance that shares its Redis, read all facts again.
func (t *target) forget(ctx context.Context) error {
	command := exec.CommandContext(ctx, t.questions.permcached, "invalidate", "--all", "--server", t.address)
	command.Env = append(os.Environ(), "AUTH_TOKEN="+t.admin)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("invalidate: %s", bytes.TrimSpace(output))
	}
	return nil
}

// callGhz runs ghz with its configuration. It passes the secret only in the environment.
func (t *target) callGhz(ctx context.Context, kind kind, output string, report *ghzReport) error {
	configuration := filepath.Join(t.configurations, kind.Name+".json")
	command := exec.CommandContext(ctx, t.ghz, "--config", configuration, "--format", "json", "--output", output, t.address)
	command.Dir = t.questions.directory
	command.Env = append(os.Environ(), "AUTH_TOKEN="+t.token)
	if printed, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ghz %s: %w: %s", kind.Name, err, bytes.TrimSpace(printed))
	}
	return readJSON(output, report)
}

// judge adds the problems of a run: each call that was not OK, each answer that was not the expected one, a missed goal.
func (r *result) judge() {
	problem := func(format string, arguments ...any) {
		r.Problems = append(r.Problems, fmt.Sprintf(format, arguments...))
	}
	if r.ghz.Count == 0 || len(r.ghz.Details) == 0 {
		problem("No call was made.")
	}
	for status, count := range r.ghz.Statuses {
		if status != "OK" {
			problem("%s calls ended with %s.", thousands(count), status)
		}
	}
	for text, count := range r.ghz.Errors {
		problem("%s times: %s", thousands(count), text)
	}
	if r.expected != nil {
		for _, answer := range r.answers() {
			if r.expected[answer] != r.got[answer] {
				problem("%s answers were “%s”; %s were expected.", thousands(r.got[answer]), answer, thousands(r.expected[answer]))
			}
		}
	}
	if r.cold && len(r.sampled) > 0 {
		first, last := r.sampled[0], r.sampled[len(r.sampled)-1]
		if last.fromMongoDB-first.fromMongoDB < uint64(len(r.ghz.Details))/4 {
			problem("The run was not cold: hardly anything was read from MongoDB.")
		}
	}
	if r.mixed && len(r.delays) == 0 && r.expected != nil {
		problem("Nothing was revoked.")
	}
	if len(r.ghz.Details) == 0 {
		return
	}
	if r.paced && r.ghz.Rps < goalRate*(1-paceSlack) {
		problem("%.0f calls a second, and the goal is %.0f.", r.ghz.Rps, goalRate)
	}
	if r.paced && r.quantile(0.95) >= goalP95 {
		problem("95 of 100 calls took up to %s, and the goal is %s.", r.quantile(0.95), goalP95)
	}
}

// answers returns the names of all answers that were expected or given, sorted.
func (r *result) answers() []string {
	var all []string
	for _, answers := range []tally{r.expected, r.got} {
		for answer := range answers {
			if !slices.Contains(all, answer) {
				all = append(all, answer)
			}
		}
	}
	slices.Sort(all)
	return all
}

// latencies returns the latencies of the answered calls, in ascending order.
func (r *result) latencies() []time.Duration {
	all := make([]time.Duration, 0, len(r.ghz.Details))
	for _, call := range r.ghz.Details {
		if call.Status == "OK" {
			all = append(all, call.Latency)
		}
	}
	slices.Sort(all)
	return all
}

// quantile returns the latency that this fraction of the calls did not exceed.
func (r *result) quantile(part float64) time.Duration { return quantile(r.latencies(), part) }

// quantile returns the quantile of sorted durations, by the nearest rank.
func quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return none
	}
	rank := int(math.Ceil(part*float64(len(sorted)))) - 1
	return sorted[max(0, min(rank, len(sorted)-1))]
}

// questionRate returns how many questions a second were answered.
func (r *result) questionRate() float64 {
	if r.batched && r.got != nil {
		return float64(r.got.total()) / r.ghz.Total.Seconds()
	}
	return r.ghz.Rps
}

// sentence returns the result of the run as one line, and one line for each problem.
func (r *result) sentence() string {
	state := "ok"
	if len(r.Problems) > 0 {
		state = "FAILED"
	}
	line := fmt.Sprintf("%-6s %7s calls, %6.0f/s, p50 %s, p95 %s, p99 %s, max %s: %s", r.Name, thousands(r.ghz.Count), r.ghz.Rps,
		short(r.quantile(0.5)), short(r.quantile(0.95)), short(r.quantile(0.99)), short(r.quantile(1)), state)
	return strings.Join(append([]string{line}, r.Problems...), "\n       ")
}
