package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// thousands writes a number with separators: 20,000.
func thousands[N int | uint64](number N) string {
	text := strconv.FormatUint(uint64(number), 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// none is the latency if there was no call.
const none = time.Duration(math.MaxInt64)

// short writes a duration with two or three digits: 0.84 ms, 12.3 ms, 1.20 s.
func short(d time.Duration) string {
	if d == none {
		return "–"
	}
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 1_000:
		return fmt.Sprintf("%.2f s", ms/1_000)
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.2f ms", ms)
	}
}
