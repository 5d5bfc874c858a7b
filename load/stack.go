package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// How long a server of the stack may take to become ready, and to stop.
const (
	startMax = 30 * time.Second
	stopMax  = 10 * time.Second
)

// The name of the database.
const databaseName = "load"

// The REDIS_SECRET of permcached. The stack's Redis listens on this machine alone, and is gone after the tests.
const redisSecret = "of-the-load-tests-0123456789abcdef"

// stack is the servers of the tests, each on a free port of this machine: a replica set of one mongod, a Redis, and
// permcached with tokens. stop ends all of them, and only their logs remain.
type stack struct {
	directory string // for the logs
	scratch   string // for mongod's files
	schema    string
	processes []*exec.Cmd
	client    *mongo.Client
	mongoURI  string
	redisURL  string
	address   string
	token     string // of a caller with the scope check
	admin     string // of a caller with the scope admin
}

// startStores starts mongod and Redis, both empty.
func startStores(ctx context.Context, directory, schema string) (_ *stack, err error) {
	s := &stack{directory: directory, schema: schema, token: rand.Text(), admin: rand.Text()}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.scratch, err = os.MkdirTemp(directory, "mongod-"); err != nil {
		return nil, err
	}
	mongoPort, redisPort, port := freePort(), freePort(), freePort()
	s.address = "127.0.0.1:" + port
	s.redisURL = "redis://127.0.0.1:" + redisPort
	s.mongoURI = fmt.Sprintf("mongodb://127.0.0.1:%s/%s?replicaSet=load", mongoPort, databaseName)
	if err = s.start(nil, server("MONGOD", "mongod"), "--port", mongoPort, "--dbpath", s.scratch, "--replSet", "load",
		"--bind_ip", "127.0.0.1", "--nounixsocket", "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5"); err != nil {
		return nil, err
	}
	if err = s.start(nil, server("REDIS_SERVER", "redis-server"), "--port", redisPort, "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--maxmemory", "256mb"); err != nil {
		return nil, err
	}
	if err = initiate(ctx, mongoPort); err != nil {
		return nil, fmt.Errorf("mongod does not become a replica set: %w: see %s", err, directory)
	}
	s.client, err = mongo.Connect(options.Client().ApplyURI(s.mongoURI))
	return s, err
}

// serve starts permcached over mongod and Redis, and waits until it is ready.
func (s *stack) serve(ctx context.Context, permcached string) error {
	_, port, _ := net.SplitHostPort(s.address)
	environment := append(s.sourceEnvironment(), "REDIS_URL="+s.redisURL, "REDIS_SECRET="+redisSecret, "BIND_ADDRESS=127.0.0.1", "PORT="+port,
		"AUTH_TOKENS=load:"+s.token, "AUTH_ADMIN_TOKENS=admin:"+s.admin, "RUST_LOG=warn")
	if err := s.start(environment, permcached, "serve"); err != nil {
		return err
	}
	return eventually(ctx, func() error {
		response, err := http.Get("http://" + s.address + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("permcached is not ready: %s", response.Status)
		}
		return nil
	})
}

// restart stops permcached, which was started last, and starts it again.
func (s *stack) restart(ctx context.Context, permcached string) error {
	last := len(s.processes) - 1
	end(s.processes[last])
	s.processes = s.processes[:last]
	return s.serve(ctx, permcached)
}

// sourceEnvironment returns the variables with which permcached reads the database.
func (s *stack) sourceEnvironment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "SCHEMA_FILE=" + s.schema, "MONGODB_URI=" + s.mongoURI}
}

// start starts a program whose output goes to a log with the program's name.
func (s *stack) start(environment []string, program string, arguments ...string) error {
	log, err := os.Create(filepath.Join(s.directory, filepath.Base(program)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(program, arguments...)
	command.Env, command.Stdout, command.Stderr = environment, log, log
	// An interrupt from the keyboard must reach only this program, which then stops the servers in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("%s does not start: %w: scripts/fetch-test-servers finds or fetches the servers", program, err)
	}
	s.processes = append(s.processes, command)
	return nil
}

// stop ends all servers, the last one first.
func (s *stack) stop() {
	if s.client != nil {
		_ = s.client.Disconnect(context.Background())
	}
	for at := len(s.processes) - 1; at >= 0; at-- {
		end(s.processes[at])
	}
	_ = os.RemoveAll(s.scratch)
}

// end stops a process, and kills it if that takes longer than stopMax.
func end(process *exec.Cmd) {
	_ = process.Process.Signal(syscall.SIGTERM)
	overdue := time.AfterFunc(stopMax, func() { _ = process.Process.Kill() })
	defer overdue.Stop()
	_ = process.Wait()
}

// server returns the program that a variable names, or else the one on the PATH.
func server(variable, name string) string {
	if program := os.Getenv(variable); program != "" {
		return program
	}
	return name
}

func freePort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// initiate makes a replica set of one node, and waits until it has a primary.
func initiate(ctx context.Context, port string) error {
	uri := "mongodb://127.0.0.1:" + port + "/?directConnection=true&serverSelectionTimeoutMS=500"
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	config := bson.D{{Key: "_id", Value: "load"}, {Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: "127.0.0.1:" + port}}}}}
	return eventually(ctx, func() error {
		err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
		if err != nil && !strings.Contains(err.Error(), "AlreadyInitialized") {
			return err
		}
		var hello struct {
			Primary bool `bson:"isWritablePrimary"`
		}
		if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
			return err
		}
		if !hello.Primary {
			return fmt.Errorf("there is no primary yet")
		}
		return nil
	})
}

// eventually tries until it succeeds. After startMax it returns the last error.
func eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
