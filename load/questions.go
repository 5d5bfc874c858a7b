package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// questions is a directory written by `permcached questions write`.
type questions struct {
	directory  string
	permcached string   // the program that wrote the directory and verifies the answers
	answers    []string // the expected answers, in order
	batch      int      // how many questions a batch holds
}

// writeQuestions draws questions from the database that the environment names.
func writeQuestions(ctx context.Context, permcached, directory string, count int, environment []string) error {
	command := exec.CommandContext(ctx, permcached, "questions", "write", "--count", strconv.Itoa(count), "--out", directory)
	command.Env, command.Stdout, command.Stderr = environment, os.Stdout, os.Stderr
	return command.Run()
}

func readQuestions(permcached, directory string) (*questions, error) {
	var expected []struct {
		Allowed bool
		Reason  string
	}
	if err := readJSON(filepath.Join(directory, "expected.json"), &expected); err != nil {
		return nil, err
	}
	var batches []struct{ Questions []json.RawMessage }
	if err := readJSON(filepath.Join(directory, "batch.json"), &batches); err != nil {
		return nil, err
	}
	if len(expected) == 0 || len(batches) == 0 {
		return nil, fmt.Errorf("%s holds no questions", directory)
	}
	q := &questions{directory: directory, permcached: permcached, batch: len(batches[0].Questions)}
	for _, expected := range expected {
		q.answers = append(q.answers, answer(expected.Allowed, expected.Reason))
	}
	return q, nil
}

// expect returns the expected answers to the first calls of a run. ghz goes through the questions, or the batches, in
// order, and starts again at the end.
func (q *questions) expect(calls uint64, batched bool) tally {
	expected := tally{}
	if !batched {
		for call := range calls {
			expected[q.answers[call%uint64(len(q.answers))]]++
		}
		return expected
	}
	batches := uint64((len(q.answers) + q.batch - 1) / q.batch)
	for call := range calls {
		first := int(call%batches) * q.batch
		for _, answer := range q.answers[first:min(first+q.batch, len(q.answers))] {
			expected[answer]++
		}
	}
	return expected
}

// verify asks every question once, and compares each answer with the expected one. The error lists the differences.
func (q *questions) verify(ctx context.Context, address, token string) error {
	command := exec.CommandContext(ctx, q.permcached, "questions", "verify", q.directory, "--server", address)
	command.Env = append(os.Environ(), "AUTH_TOKEN="+token)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s", bytes.TrimSpace(output))
	}
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
