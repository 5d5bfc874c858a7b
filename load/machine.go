package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// fact is one property of the machine or of the programs, for readers of the report.
type fact struct{ Name, Value string }

// versions lists what the tests ran on.
func (s *settings) versions(ctx context.Context) []fact {
	facts := []fact{
		{"Machine", fmt.Sprintf("%s, %d cores, %s", processor(), runtime.NumCPU(), runtime.GOOS)},
		{"permcached", firstLine(ctx, s.permcached, "--version")},
		{"ghz", firstLine(ctx, s.ghz, "--version")},
	}
	if s.server == "" {
		facts = append(facts,
			fact{"MongoDB", firstLine(ctx, server("MONGOD", "mongod"), "--version")},
			fact{"Redis", firstLine(ctx, server("REDIS_SERVER", "redis-server"), "--version")},
			fact{"Documents", thousands(documents)})
	}
	return facts
}

// processor returns the processor's name on Linux, and the architecture elsewhere.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstLine(ctx context.Context, program string, arguments ...string) string {
	output, err := exec.CommandContext(ctx, program, arguments...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	return line
}
