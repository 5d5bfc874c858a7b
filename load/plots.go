package main

import (
	"fmt"
	"html/template"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Horizontal bounds that most drawings share.
const (
	left  = 150.0
	right = plotWidth - 20
)

// ladder draws the latencies of each run relative to the goal. The dark bar ends at the 50th percentile, the light bar at
// the 99th; a mark shows the 95th.
func ladder(results []*result) template.HTML {
	const row, top = 62.0, 34.0
	d := newDrawing(top + row*float64(len(results)) + 26)
	x := latencyScale(left, right)
	bottom := top + row*float64(len(results))
	for _, tick := range latencyTicks {
		d.line("grid", x.at(tick), top, x.at(tick), bottom)
		d.text("tick", "middle", x.at(tick), bottom+20, tickText(tick))
	}
	goal := x.at(milliseconds(goalP95))
	d.box("beyond", goal, top, right-goal, bottom-top)
	d.line("goal", goal, top-8, goal, bottom)
	d.text("goal-text", "middle", goal, top-14, "goal: p95 below "+tickText(milliseconds(goalP95)))
	for at, r := range results {
		y := top + row*float64(at) + row/2
		all := r.latencies()
		place := func(part float64) float64 { return x.at(milliseconds(quantile(all, part))) }
		d.text("name", "end", left-16, y+1, r.Title)
		d.text("tick", "end", left-16, y+18, fmt.Sprintf("%.0f/s", r.ghz.Rps))
		d.box("bar faint "+r.Name, place(0), y-7, place(0.99)-place(0), 14)
		d.box("bar "+r.Name, place(0), y-7, place(0.5)-place(0), 14)
		d.line("tail "+r.Name, place(0.99), y, place(1), y)
		d.dot("max "+r.Name, place(1), y, 3)
		p95 := place(0.95)
		d.line("mark", p95, y-13, p95, y+13)
		anchor := "middle"
		if p95 > goal-50 && p95 < goal {
			anchor = "end"
		}
		d.text("value", anchor, p95, y-17, "p95 "+short(quantile(all, 0.95)))
		d.text("tick", "middle", place(0.5), y+24, short(quantile(all, 0.5)))
		times := float64(goalP95) / float64(quantile(all, 0.95))
		d.text("tick", "end", right-8, y-12, distance(times))
	}
	return d.done("For each run, where its latencies lie, and how far its 95th percentile is below the goal")
}

// distance describes how far below the goal a latency is, or that it missed the goal.
func distance(times float64) string {
	switch {
	case times >= 10:
		return fmt.Sprintf("%.0f times below", times)
	case times > 1:
		return fmt.Sprintf("%.1f times below", times)
	default:
		return "missed"
	}
}

// percentiles draws each run's latency by percentile. The axis is stretched towards the slowest calls.
func percentiles(results []*result) template.HTML {
	const top, bottom = 20.0, 380.0
	d := newDrawing(bottom + 34)
	y := latencyScale(bottom, top)
	marks := []float64{0, 0.5, 0.9, 0.99, 0.999, 0.9999}
	// Each further nine (90 %, 99 %, 99.9 %) takes the same width.
	x := func(part float64) float64 {
		return 70 + (right-70)*min(-math.Log10(1-part), 4.5)/4.5
	}
	for _, tick := range latencyTicks {
		d.line("grid", 70, y.at(tick), right, y.at(tick))
		d.text("tick", "end", 60, y.at(tick)+4, tickText(tick))
	}
	for _, mark := range marks {
		d.line("grid", x(mark), top, x(mark), bottom)
		text := fmt.Sprintf("p%g", mark*100)
		if mark == 0 {
			text = "fastest"
		}
		d.text("tick", "middle", x(mark), bottom+20, text)
	}
	goal := y.at(milliseconds(goalP95))
	d.line("goal", 70, goal, x(0.95), goal)
	d.line("goal", x(0.95), top, x(0.95), goal)
	d.text("goal-text", "start", 78, goal-8, "goal: p95 below "+tickText(milliseconds(goalP95)))
	for _, r := range results {
		all := r.latencies()
		var points []point
		for step := 0.0; step <= 4.5; step += 0.02 {
			part := 1 - math.Pow(10, -step)
			if part*float64(len(all)) > float64(len(all)-1) {
				break
			}
			points = append(points, point{x(part), y.at(milliseconds(quantile(all, part)))})
		}
		points = append(points, point{x(1 - 1/float64(len(all)+1)), y.at(milliseconds(quantile(all, 1)))})
		d.path("curve "+r.Name, points, "")
		last := points[len(points)-1]
		d.dot("max "+r.Name, last.x, last.y, 3)
	}
	return d.done("Latency by percentile of each run")
}

// ridges draws the distribution of each run's latencies, one above the other, on one scale.
func ridges(results []*result) template.HTML {
	const row, top, bins = 78.0, 10.0, 160
	height := top + row*float64(len(results))
	d := newDrawing(height + 28)
	x := latencyScale(left, right)
	for _, tick := range latencyTicks {
		d.line("grid", x.at(tick), top, x.at(tick), height)
		d.text("tick", "middle", x.at(tick), height+20, tickText(tick))
	}
	goal := x.at(milliseconds(goalP95))
	d.line("goal", goal, top, goal, height)
	for at, r := range results {
		base := top + row*float64(at+1)
		counts := make([]float64, bins)
		all := r.latencies()
		for _, latency := range all {
			place := (x.at(milliseconds(latency)) - left) / (right - left)
			counts[min(int(place*bins), bins-1)]++
		}
		highest := slices.Max(counts)
		var points []point
		for bin, count := range counts {
			points = append(points, point{left + (float64(bin)+0.5)*(right-left)/bins, base - (row-12)*count/max(highest, 1)})
		}
		d.area(r.Name, points, base)
		d.text("name", "end", left-16, base-14, r.Title)
		d.text("tick", "end", left-16, base+2, thousands(len(all))+" calls")
	}
	return d.done("How the latencies of each run are spread")
}

// The duration that one point of a plot over time represents.
const slice = 500 * time.Millisecond

// overTime draws how many calls a second each run made over time, with the goal if the run was paced.
func overTime(results []*result) template.HTML {
	const row, top = 104.0, 8.0
	d := newDrawing(top + row*float64(len(results)))
	for at, r := range results {
		rates := r.ratesOverTime()
		if len(rates) == 0 {
			continue
		}
		base := top + row*float64(at) + row - 26
		y := scale{from: 0, to: max(slices.Max(rates), goalRate*1.1), start: base, end: base - row + 36}
		if r.batched {
			y.to = slices.Max(rates) * 1.1
		}
		x := scale{from: 0, to: float64(len(rates)), start: left, end: right}
		var points []point
		for slot, rate := range rates {
			points = append(points, point{x.at(float64(slot) + 0.5), y.at(rate)})
		}
		d.line("grid", left, base, right, base)
		d.area(r.Name, points, base)
		if r.paced {
			d.line("goal", left, y.at(goalRate), right, y.at(goalRate))
			if at == 0 {
				d.text("goal-text", "end", right, 10, fmt.Sprintf("goal: %s a second", thousands(uint64(goalRate))))
			}
		}
		d.text("name", "end", left-16, base-24, r.Title)
		d.text("tick", "end", left-16, base-8, fmt.Sprintf("%s calls/s", thousands(uint64(math.Round(r.ghz.Rps)))))
		d.text("tick", "start", left, base+16, "0 s")
		d.text("tick", "end", right, base+16, fmt.Sprintf("%.0f s", r.ghz.Total.Seconds()))
	}
	return d.done("Calls a second over time, for each run")
}

// ratesOverTime returns how many calls a second began and were answered, for each slice.
func (r *result) ratesOverTime() []float64 {
	if len(r.ghz.Details) == 0 {
		return nil
	}
	first, last := r.ghz.Details[0].Timestamp, r.ghz.Details[0].Timestamp
	for _, call := range r.ghz.Details {
		if call.Timestamp.Before(first) {
			first = call.Timestamp
		}
		if call.Timestamp.After(last) {
			last = call.Timestamp
		}
	}
	slices := max(int(last.Sub(first)/slice), 1)
	rates := make([]float64, slices)
	for _, call := range r.ghz.Details {
		// The incomplete last slice is left out: it would look like a drop.
		if at := int(call.Timestamp.Sub(first) / slice); at < slices && call.Status == "OK" {
			rates[at] += float64(time.Second / slice)
		}
	}
	return rates
}

// tiers draws how many facts a second came from MongoDB and from Redis during each run. All others came from memory.
func tiers(results []*result) template.HTML {
	const row, top = 104.0, 8.0
	d := newDrawing(top + row*float64(len(results)))
	highest := 1.0
	rates := func(r *result, of func(counters) uint64) []point {
		var points []point
		for at := 1; at < len(r.sampled); at++ {
			earlier, now := r.sampled[at-1], r.sampled[at]
			// The last sample may follow the previous one so closely that its rate would be random.
			if passed := now.at.Sub(earlier.at); passed > sampleEvery/2 {
				points = append(points, point{now.at.Sub(r.sampled[0].at).Seconds(), float64(of(now)-of(earlier)) / passed.Seconds()})
			}
		}
		for _, p := range points {
			highest = max(highest, p.y)
		}
		return points
	}
	type curves struct{ mongodb, redis []point }
	all := make([]curves, len(results))
	for at, r := range results {
		all[at] = curves{rates(r, func(c counters) uint64 { return c.fromMongoDB }), rates(r, func(c counters) uint64 { return c.fromRedis })}
	}
	for at, r := range results {
		base := top + row*float64(at) + row - 26
		seconds := max(r.ghz.Total.Seconds(), 1)
		x := scale{from: 0, to: seconds, start: left, end: right}
		y := scale{from: 0, to: highest, start: base, end: base - row + 36}
		placed := func(points []point) []point {
			var places []point
			for _, p := range points {
				places = append(places, point{x.at(p.x), y.at(p.y)})
			}
			return places
		}
		d.line("grid", left, base, right, base)
		d.area("mongodb", placed(all[at].mongodb), base)
		d.area("redis", placed(all[at].redis), base)
		d.text("name", "end", left-16, base-24, r.Title)
		first, last := r.sampled[0], r.sampled[len(r.sampled)-1]
		facts := last.fromMongoDB + last.fromRedis - first.fromMongoDB - first.fromRedis
		d.text("tick", "end", left-16, base-8, thousands(facts)+" facts")
		d.text("tick", "start", left, base+16, "0 s")
		d.text("tick", "end", right, base+16, fmt.Sprintf("%.0f s", seconds))
	}
	d.text("tick", "end", right, 14, fmt.Sprintf("the highest peak: %s facts a second", thousands(uint64(highest))))
	return d.done("Facts a second from MongoDB and from Redis, for each run")
}

// revocations draws each grant and revocation as a dot: the time from the acknowledged write to the first answer that
// reflects it.
func revocations(r *result) template.HTML {
	const row, top = 96.0, 30.0
	rows := []struct {
		name  string
		class string
		of    func(delay) bool
	}{
		{"Granted", "warm", func(d delay) bool { return !d.revoked }},
		{"Revoked", "mixed", func(d delay) bool { return d.revoked && !d.invalidated }},
		{"with Invalidate", "cold", func(d delay) bool { return d.revoked && d.invalidated }},
	}
	height := top + row*float64(len(rows))
	d := newDrawing(height + 28)
	x := scale{from: 0.3, to: 4_000, start: left, end: right, isLog: true}
	for _, tick := range []float64{1, 10, 100, 1_000} {
		d.line("grid", x.at(tick), top, x.at(tick), height)
		d.text("tick", "middle", x.at(tick), height+20, tickText(tick))
	}
	bound := x.at(milliseconds(stalenessMax))
	d.box("beyond", bound, top, right-bound, height-top)
	d.line("goal", bound, top-6, bound, height)
	d.text("goal-text", "end", right, top-12, "never later than MAX_STALENESS")
	for at, row := range rows {
		y := top + 96*float64(at) + 52
		var delays []time.Duration
		for _, delay := range r.delays {
			if row.of(delay) {
				delays = append(delays, delay.time)
			}
		}
		slices.Sort(delays)
		d.text("name", "end", left-16, y-2, row.name)
		d.text("tick", "end", left-16, y+15, thousands(len(delays))+" times")
		if len(delays) == 0 {
			continue
		}
		// Scatters dots of similar delays vertically, in the same way each time.
		strewn := rand.New(rand.NewPCG(1, 2))
		for _, delay := range delays {
			d.dot("mote "+row.class, x.at(milliseconds(delay)), y+strewn.Float64()*40-20, 2.4)
		}
		p50, p99 := quantile(delays, 0.5), quantile(delays, 0.99)
		d.line("mark", x.at(milliseconds(p50)), y-26, x.at(milliseconds(p50)), y+26)
		d.text("value", "middle", x.at(milliseconds(p50)), y-32, "p50 "+short(p50))
		if x.at(milliseconds(p99))-x.at(milliseconds(p50)) > 90 {
			d.line("mark", x.at(milliseconds(p99)), y-26, x.at(milliseconds(p99)), y+26)
			d.text("value", "middle", x.at(milliseconds(p99)), y-32, "p99 "+short(p99))
		}
	}
	return d.done("How long after an acknowledged write the first answer went by it")
}

// answersBar draws the share of each answer, with the expected shares below.
func answersBar(r *result) template.HTML {
	const height = 30.0
	d := newDrawing(height)
	for at, counted := range []tally{r.got, r.expected} {
		x := 0.0
		for _, answer := range r.answers() {
			width := plotWidth * float64(counted[answer]) / float64(max(counted.total(), 1))
			fmt.Fprintf(d, `<rect class="answer %s" x="%.2f" y="%d" width="%.2f" height="%d"/>`, answerClass(answer), x, at*18, max(width-2, 0.6), 14-6*at)
			x += width
		}
	}
	return d.done("The answers given, and below them the expected ones")
}

// answerClass returns the CSS class for the colour of an answer.
func answerClass(answer string) string {
	classes := map[string]string{"allowed": "yes", "denied NO_GRANT": "no-grant", "denied EXCLUDED": "excluded", "denied NOT_FOUND": "not-found",
		"denied EXPIRED": "expired", "denied SUBJECT_INACTIVE": "inactive"}
	if class, known := classes[answer]; known {
		return class
	}
	return "other"
}
