package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// How often a run reads the counters.
const sampleEvery = 500 * time.Millisecond

// counters are the server's counts since it started.
type counters struct {
	at        time.Time
	decisions tally
	// How many facts the server read from MongoDB and from Redis.
	fromMongoDB, fromRedis uint64
}

// tally counts answers by name: "allowed", or "denied" and the reason.
type tally map[string]uint64

func (t tally) total() uint64 {
	var total uint64
	for _, count := range t {
		total += count
	}
	return total
}

// since returns the increase of each count since an earlier tally.
func (t tally) since(earlier tally) tally {
	grown := tally{}
	for answer, count := range t {
		if more := count - earlier[answer]; more != 0 {
			grown[answer] = more
		}
	}
	return grown
}

var (
	metricLine = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
	label      = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// readCounters reads the server's /metrics. It sums over all labels other than the decision and its reason.
func readCounters(ctx context.Context, address string) (counters, error) {
	read := counters{decisions: tally{}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return read, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return read, err
	}
	defer response.Body.Close()
	read.at = time.Now()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	isPermcached := false
	for lines.Scan() {
		// permcached_decisions_total does not exist before the first decision, so another metric identifies the server.
		isPermcached = isPermcached || strings.HasPrefix(lines.Text(), "permcached_build_info{")
		parts := metricLine.FindStringSubmatch(lines.Text())
		if parts == nil {
			continue
		}
		value, err := strconv.ParseFloat(parts[3], 64)
		if err != nil {
			continue
		}
		labels := map[string]string{}
		for _, pair := range label.FindAllStringSubmatch(parts[2], -1) {
			labels[pair[1]] = pair[2]
		}
		switch parts[1] {
		case "permcached_decisions_total":
			read.decisions[answer(labels["decision"] == "allowed", labels["reason"])] += uint64(value)
		case "permcached_facts_found_total":
			switch labels["tier"] {
			case "source":
				read.fromMongoDB += uint64(value)
			case "redis":
				read.fromRedis += uint64(value)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return read, err
	}
	if !isPermcached {
		return read, fmt.Errorf("%s: /metrics is not from permcached", address)
	}
	return read, nil
}

// answer returns the name under which an answer is counted.
func answer(allowed bool, reason string) string {
	if allowed {
		return "allowed"
	}
	return strings.TrimSpace("denied " + reason)
}

// watch reads the counters repeatedly until the context ends.
func watch(ctx context.Context, address string) []counters {
	var seen []counters
	every := time.NewTicker(sampleEvery)
	defer every.Stop()
	for {
		if now, err := readCounters(ctx, address); err == nil {
			seen = append(seen, now)
		}
		select {
		case <-ctx.Done():
			return seen
		case <-every.C:
		}
	}
}
