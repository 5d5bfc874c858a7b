package main

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"
)

// The width of all plots, in the units of the drawings. The page scales them.
const plotWidth = 1000.0

// drawing is an SVG. Its colours are CSS classes of the page, so it suits light and dark mode.
type drawing struct {
	strings.Builder
	height float64
}

func newDrawing(height float64) *drawing { return &drawing{height: height} }

// done returns the drawing as a part of the page, with a description in words for readers who cannot see it.
func (d *drawing) done(words string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">%s</svg>`,
		plotWidth, d.height, html.EscapeString(words), d.String()))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) box(class string, x, y, width, height float64) {
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`, class, x, y, max(width, 0), height, min(height, width, 8)/2)
}

func (d *drawing) dot(class string, x, y, radius float64) {
	fmt.Fprintf(d, `<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"/>`, class, x, y, radius)
}

// text draws a text anchored at its start, middle or end.
func (d *drawing) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`, class, anchor, x, y, html.EscapeString(text))
}

// point is a place in a drawing.
type point struct{ x, y float64 }

func (d *drawing) path(class string, points []point, end string) {
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(d, `<path class="%s" d="`, class)
	for at, p := range points {
		command := "L"
		if at == 0 {
			command = "M"
		}
		fmt.Fprintf(d, "%s%.1f %.1f", command, p.x, p.y)
	}
	d.WriteString(end + `"/>`)
}

// area fills the area between the points and a base line, and draws a curve through the points.
func (d *drawing) area(colour string, points []point, base float64) {
	if len(points) == 0 {
		return
	}
	closed := append([]point{{points[0].x, base}}, points...)
	d.path("area "+colour, append(closed, point{points[len(points)-1].x, base}), "Z")
	d.path("curve "+colour, points, "")
}

// scale maps values to places in a drawing.
type scale struct {
	from, to   float64 // values
	start, end float64 // places
	isLog      bool
}

func (s scale) at(value float64) float64 {
	from, to := s.from, s.to
	if s.isLog {
		from, to, value = math.Log(from), math.Log(to), math.Log(max(value, s.from))
	}
	return s.start + (s.end-s.start)*min(max((value-from)/(to-from), 0), 1)
}

// milliseconds converts a duration.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// latencyTicks are the marks on a scale of latencies, in milliseconds.
var latencyTicks = []float64{0.1, 1, 10, 100, 1_000}

// latencyScale covers the latencies of the runs and the goal.
func latencyScale(start, end float64) scale {
	return scale{from: 0.1, to: 2_000, start: start, end: end, isLog: true}
}

func tickText(ms float64) string {
	if ms >= 1_000 {
		return fmt.Sprintf("%g s", ms/1_000)
	}
	return fmt.Sprintf("%g ms", ms)
}
