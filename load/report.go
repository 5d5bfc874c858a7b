package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"slices"
	"time"
)

//go:embed report.html
var page string

// report holds all runs, and what they ran on. It is written as one file that loads nothing from elsewhere.
type report struct {
	server    string // empty if this program started the server
	questions int
	Facts     []fact
	results   []*result
}

func newReport(server string, questions int, facts []fact) *report {
	return &report{server: server, questions: questions, Facts: facts}
}

// failed reports whether any run has a problem.
func (r *report) failed() bool {
	return slices.ContainsFunc(r.results, func(result *result) bool { return len(result.Problems) > 0 })
}

// hasMargin reports whether each paced run would meet the goal even if its calls took twice as long.
func (r *report) hasMargin() bool {
	return !slices.ContainsFunc(r.results, func(result *result) bool { return result.paced && result.quantile(0.95) > goalP95/2 })
}

// section is one plot with its title and explanation.
type section struct {
	Title, Text string
	Legend      []legend
	Plot        template.HTML
}

// legend is a colour and its meaning.
type legend struct{ Class, Name string }

// answerRow shows the answers of one run.
type answerRow struct {
	Class, Title string
	Bar          template.HTML
	Counts       []answerCount
}

type answerCount struct {
	Class, Name, Got, Expected string
	Right                      bool
}

func (r *report) write(path string) error {
	layout, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	err = layout.Execute(file, map[string]any{
		"Failed": r.failed(), "HasMargin": r.hasMargin(), "Results": r.tiles(), "Sections": r.sections(), "Answers": r.answers(), "Facts": r.Facts,
		"Questions": thousands(r.questions), "Server": r.server, "Calls": thousands(r.calls()),
		"When": started.UTC().Format("2 January 2006, 15:04 UTC"), "Took": time.Since(started).Round(time.Second).String(),
	})
	if err != nil {
		return err
	}
	return file.Close()
}

// calls returns the number of calls of all runs.
func (r *report) calls() uint64 {
	var calls uint64
	for _, result := range r.results {
		calls += result.ghz.Count
	}
	return calls
}

// tile is the summary of a run in figures.
type tile struct {
	Class, Title, What, Rate, Unit, P50, P95, P99, Max string
	Problems                                           []string
}

func (r *report) tiles() []tile {
	var tiles []tile
	for _, result := range r.results {
		unit := "calls a second"
		if result.batched && result.got != nil {
			unit = "questions a second"
		}
		at := func(part float64) string { return short(result.quantile(part)) }
		tiles = append(tiles, tile{
			Class: result.Name, Title: result.Title, What: result.What, Rate: thousands(uint64(result.questionRate() + 0.5)), Unit: unit,
			P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: at(1), Problems: result.Problems,
		})
	}
	return tiles
}

// sections returns the plots, each with the runs that it applies to.
func (r *report) sections() []section {
	of := func(wanted func(*result) bool) []*result {
		var chosen []*result
		for _, result := range r.results {
			if len(result.ghz.Details) > 0 && wanted(result) {
				chosen = append(chosen, result)
			}
		}
		return chosen
	}
	singles := of(func(r *result) bool { return !r.batched })
	var names []legend
	for _, result := range singles {
		names = append(names, legend{result.Name, result.Title})
	}
	var sections []section
	add := func(title, text string, names []legend, plot template.HTML) {
		sections = append(sections, section{Title: title, Text: text, Legend: names, Plot: plot})
	}
	if len(singles) > 0 {
		add("The goal, and the distance to it", fmt.Sprintf("%s calls a second, 95 of 100 of them within %s. The dark bar holds the faster half of a run’s calls, the light one 99 of 100; the dot is the slowest call of all. To the right: how far its 95th percentile is below the goal.", thousands(uint64(goalRate)), tickText(milliseconds(goalP95))), nil, ladder(singles))
		add("How long calls took", "The part of a run’s calls that took no longer. To the right stand the rare ones: each mark is ten times rarer than the one before.", names, percentiles(singles))
		add("How latencies are spread", "Each run on the same scale; its most frequent latency is the peak.", nil, ridges(singles))
	}
	if all := of(func(*result) bool { return true }); len(all) > 0 {
		add("Calls over time", "Calls begun in each half second, as a rate. Where a run is paced, it should lie on the goal.", nil, overTime(all))
	}
	if looked := of((*result).hasRead); len(looked) > 0 {
		add("Where facts came from", "Facts that were read from MongoDB or found in Redis, a second. All others were remembered in the process; runs in which all were are left out.", []legend{{"mongodb", "MongoDB"}, {"redis", "Redis"}}, tiers(looked))
	}
	for _, result := range of(func(r *result) bool { return len(r.delays) > 0 }) {
		add("How soon a revocation is seen", "A share is granted, then taken away, and asked about without a pause. Each dot is one of them: the time from MongoDB’s acknowledgement to the first answer that goes by it. With Invalidate, that call is part of the time, and the first answer after it has to be the new one.", nil, revocations(result))
	}
	return sections
}

// hasRead reports whether any fact came from MongoDB or Redis.
func (r *result) hasRead() bool {
	if len(r.sampled) < 2 {
		return false
	}
	first, last := r.sampled[0], r.sampled[len(r.sampled)-1]
	return last.fromMongoDB+last.fromRedis > first.fromMongoDB+first.fromRedis
}

// answers returns, for each run, what the server counted and what was expected.
func (r *report) answers() []answerRow {
	var rows []answerRow
	for _, result := range r.results {
		if result.expected == nil {
			continue
		}
		row := answerRow{Class: result.Name, Title: result.Title, Bar: answersBar(result)}
		for _, answer := range result.answers() {
			got, expected := result.got[answer], result.expected[answer]
			row.Counts = append(row.Counts, answerCount{answerClass(answer), answer, thousands(got), thousands(expected), got == expected})
		}
		rows = append(rows, row)
	}
	return rows
}
