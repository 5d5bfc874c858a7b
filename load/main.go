// Command load runs the load tests of permcached with ghz, checks every answer, and writes a report with plots.
//
// Without -server it starts every server that it requires on this machine, and fills a database. With -server it asks an
// existing server, and changes nothing there. README.md in this directory describes the files, ../docs/load.md the runs
// and their results.
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

// How many questions are drawn. The cold run asks each at most once.
const questionCount = 20_000

type settings struct {
	ghz, permcached, schema, configurations, out string
	server, questions, runs                      string
}

func main() {
	var s settings
	flag.StringVar(&s.ghz, "ghz", "ghz", "the `program` ghz")
	flag.StringVar(&s.permcached, "permcached", "permcached", "the `program` permcached")
	flag.StringVar(&s.configurations, "configurations", ".", "the `directory` with ghz's configurations")
	flag.StringVar(&s.out, "out", "../target/load", "the `directory` for the report, the questions, the logs and the results of ghz")
	flag.StringVar(&s.schema, "schema", "../schemas/fylora-sharing.toml", "without -server: the `file` of the schema")
	flag.StringVar(&s.server, "server", "", "ask the server at this `host:port`, with the token in AUTH_TOKEN")
	flag.StringVar(&s.questions, "questions", "", "with -server: a `directory` written by permcached questions write (default: draws questions from MONGODB_URI by SCHEMA_FILE)")
	flag.StringVar(&s.runs, "runs", "", "the `names` of the runs, separated by commas (default: all; with -server: warm,batch)")
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
	// Some programs run in other directories, so paths are made absolute. The bare name of a program is looked up on the PATH.
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
		return errors.New("some runs have problems: see above")
	}
	return nil
}

// startStack starts the servers, fills the database and draws the questions.
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
		return nil, fmt.Errorf("cannot fill the database: %w", err)
	}
	if err := s.drawQuestions(ctx, stack.sourceEnvironment()); err != nil {
		return nil, err
	}
	return stack, stack.serve(ctx, s.permcached)
}

// drawQuestions draws the questions from the database and by the schema that the environment names.
func (s *settings) drawQuestions(ctx context.Context, environment []string) error {
	s.questions = filepath.Join(s.out, "questions")
	if err := writeQuestions(ctx, s.permcached, s.questions, questionCount, environment); err != nil {
		return fmt.Errorf("cannot draw questions: %w", err)
	}
	return nil
}

// chosen returns the chosen runs, in their order. With -server, it refuses runs that write, invalidate facts or restart it.
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
			return nil, fmt.Errorf("the run %s invalidates facts, restarts the server, or writes to its database: leave it out with -server", kind.Name)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-runs %s: there is no such run", s.runs)
	}
	return chosen, nil
}

// started is when this program started.
var started = time.Now()
