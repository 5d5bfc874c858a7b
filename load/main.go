// Command load runs the load tests of permcached with ghz, checks every answer, and writes a report with plots.
//
// Without -server it starts all that it needs on this machine, and fills a database; with it, it asks a server that is there
// already, and changes nothing there. README.md beside this file says what is run; ../docs/load.md says what came of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// How many questions are drawn: each is asked at most once in the cold run.
const questionCount = 20_000

type settings struct {
	ghz, permcached, schema, configurations, out string
	server, questions, runs                      string
}

func main() {
	var s settings
	flag.StringVar(&s.ghz, "ghz", "ghz", "the program ghz")
	flag.StringVar(&s.permcached, "permcached", "permcached", "the program permcached")
	flag.StringVar(&s.configurations, "configurations", ".", "the `directory` of ghz's configurations")
	flag.StringVar(&s.out, "out", "../target/load", "the `directory` of the report, and of all that leads to it")
	flag.StringVar(&s.schema, "schema", "../schemas/fylora-sharing.toml", "the schema, without -server")
	flag.StringVar(&s.server, "server", "", "ask this server, as `host:port`, with the token in AUTH_TOKEN")
	flag.StringVar(&s.questions, "questions", "", "with -server: a `directory` that permcached questions write has written (default: they are drawn, from MONGODB_URI by SCHEMA_FILE)")
	flag.StringVar(&s.runs, "runs", "", "which runs, by name (default all; warm,batch with -server)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.main(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		stop()
		os.Exit(1)
	}
}

func (s *settings) main(ctx context.Context) error {
	chosen, err := s.chosen()
	if err != nil {
		return err
	}
	// They are used in other directories than this one. A bare name of a program is looked for on the PATH.
	for _, path := range []*string{&s.configurations, &s.out, &s.schema, &s.permcached, &s.ghz, &s.questions} {
		isName := path == &s.permcached || path == &s.ghz
		if *path == "" || isName && !strings.ContainsRune(*path, filepath.Separator) {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	target := &target{ghz: s.ghz, configurations: s.configurations, address: s.server, token: os.Getenv("AUTH_TOKEN")}
	switch {
	case s.server == "":
		stack, err := s.startStack(ctx)
		if err != nil {
			return err
		}
		defer stack.stop()
		target.stack, target.address, target.token, target.admin = stack, stack.address, stack.token, stack.admin
	case s.questions == "":
		if err := s.drawQuestions(ctx, os.Environ()); err != nil {
			return err
		}
	}
	if target.questions, err = readQuestions(s.permcached, s.questions); err != nil {
		return err
	}
	fmt.Printf("verify %d questions\n", len(target.questions.answers))
	if err := target.questions.verify(ctx, target.address, target.token); err != nil {
		return fmt.Errorf("before any load: %w", err)
	}
	report := newReport(s.server, len(target.questions.answers), s.versions(ctx))
	for _, kind := range chosen {
		result := target.run(ctx, kind, s.out)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Println(result.sentence())
		report.results = append(report.results, result)
	}
	path := filepath.Join(s.out, "report.html")
	if err := report.write(path); err != nil {
		return err
	}
	fmt.Println("report:", path)
	if report.failed() {
		return errors.New("not all is as it should be: see above")
	}
	return nil
}

// startStack starts and fills everything, and draws the questions.
func (s *settings) startStack(ctx context.Context) (_ *stack, err error) {
	fmt.Printf("start  mongod, Redis, permcached; fill a database with %s documents\n", thousands(documents))
	stack, err := startStores(ctx, s.out, s.schema)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			stack.stop()
		}
	}()
	if err := seed(ctx, stack.client.Database(databaseName)); err != nil {
		return nil, fmt.Errorf("the database cannot be filled: %w", err)
	}
	if err := s.drawQuestions(ctx, stack.sourceEnvironment()); err != nil {
		return nil, err
	}
	return stack, stack.serve(ctx, s.permcached)
}

// drawQuestions draws them from the database, and by the schema, that the environment names.
func (s *settings) drawQuestions(ctx context.Context, environment []string) error {
	s.questions = filepath.Join(s.out, "questions")
	if err := writeQuestions(ctx, s.permcached, s.questions, questionCount, environment); err != nil {
		return fmt.Errorf("no questions were drawn: %w", err)
	}
	return nil
}

// chosen are the runs, in their order. Those that write, or make a server forget, are for servers of our own.
func (s *settings) chosen() ([]kind, error) {
	names := strings.Split(s.runs, ",")
	if s.runs == "" && s.server != "" {
		names = []string{"warm", "batch"}
	}
	var chosen []kind
	for _, kind := range kinds {
		switch {
		case s.runs == "" && s.server == "", slices.Contains(names, kind.Name):
			chosen = append(chosen, kind)
		default:
			continue
		}
		if s.server != "" && (kind.cold || kind.restarted || kind.mixed) {
			return nil, fmt.Errorf("the run %s makes a server forget or start anew, or writes into its database: leave it out with -server", kind.Name)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-runs %s: there is no such run", s.runs)
	}
	return chosen, nil
}

// started is when this program began.
var started = time.Now()
