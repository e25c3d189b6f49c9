package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// need skips the test for lack of a program; in CI that is a failure.
func need(t *testing.T, err error) {
	t.Helper()
	var m *missingError
	switch {
	case err == nil:
	case !errors.As(err, &m) || os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// TestComposeFile has the compose file read by what will run it, and looks at what containers may do.
func TestComposeFile(t *testing.T) {
	e, err := newEngine(t.Context(), t.TempDir())
	need(t, err)
	project, err := projectDir()
	if err != nil {
		t.Fatal(err)
	}
	out, err := newLab(e, project).runCompose(t.Context(), "config")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pattern string
		want    int
	}{
		{`(?m)^ +read_only: true$`, 4},
		{`(?m)^ +- no-new-privileges:true$`, 4},
		{`(?m)^ +cap_drop:\n +- ALL$`, 4},
		{`(?m)^ +cap_add:\n +- NET_RAW\n +[a-z]`, 4}, // and nothing else
		{`(?m)^ +healthcheck:$`, 3},
		{`privileged: true|network_mode|pid: host|/var/run/docker`, 0},
		{`(?m)^ +internal: true$`, 2},
		{`(?m)driver.mtu: ['"]?9000`, 1},
	} {
		if got := len(regexp.MustCompile(c.pattern).FindAllString(out, -1)); got != c.want {
			t.Errorf("%d times %s, want %d, in\n%s", got, c.pattern, c.want, out)
		}
	}
}

// TestDemoInContainers tells the whole story in containers: on the engine that runs, or on one of its own.
func TestDemoInContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	dir, err := os.MkdirTemp("/var/tmp", "clade-") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e, err := newEngine(t.Context(), dir)
	need(t, err)
	project, err := projectDir()
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join("bin", "clade"), "./cmd/clade")
	build.Dir, build.Env = filepath.Join(project, "..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	running, err := e.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !running {
		err := e.start(t.Context())
		t.Cleanup(func() {
			if err := e.stop(); err != nil {
				t.Error(err)
			}
		})
		need(t, err)
	}
	// Beside any lab that is up on the same engine.
	l := newLab(e, project, "COMPOSE_PROJECT_NAME=clade-test", "CLADE_IMAGE=clade-test", "CLADE_SAN=10.178.0.0/24", "CLADE_CLUSTER=10.177.0.0/24")
	var out bytes.Buffer
	err = runDemo(t.Context(), &out, l)
	if running {
		_, rerr := e.docker(context.WithoutCancel(t.Context()), "rmi", "clade-test")
		err = errors.Join(err, rerr)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Logf("\n%s", out.String())
	if n := strings.Count(out.String(), "| PASS |") + strings.Count(out.String(), "| SLOW |"); n != 10 {
		t.Errorf("%d checks passed, want 10", n)
	}
}

// TestMissingIsNamed runs the command where something is not installed.
func TestMissingIsNamed(t *testing.T) {
	// dumb is a docker client without a compose plugin, or one that reaches no engine.
	script := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const noEngine = `[ "$1" != version ]`
	for _, c := range []struct {
		name, want string
		scripts    map[string]string
	}{
		{"client", "the docker client is not installed", nil},
		{"compose", "neither docker-compose nor the compose plugin", map[string]string{"docker": "exit 1"}},
		{"engine", "no Docker engine answers, and ", map[string]string{"docker": noEngine}},
		{"plain compose", "no Docker engine answers, and ", map[string]string{"docker": "exit 1", "docker-compose": "exit 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			t.Setenv("DOCKER_HOST", "")
			for name, text := range c.scripts {
				script(t, dir, name, text)
			}
			err := func() error {
				e, err := newEngine(t.Context(), dir)
				if err != nil {
					return err
				}
				if running, err := e.find(t.Context()); running || err != nil {
					return fmt.Errorf("an engine was found: %t, %w", running, err)
				}
				return e.start(t.Context())
			}()
			var m *missingError
			if !errors.As(err, &m) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "apt-get install docker.io") {
				t.Errorf("got %v, want %q and what to install", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

// TestFeedWaitsForTheDeath: a quarter of the data is kept back until the node is dead, whatever the speeds.
func TestFeedWaitsForTheDeath(t *testing.T) {
	killed := make(chan error, 1)
	f := &feed{data: newData(), half: make(chan struct{}), killed: killed}
	buf := make([]byte, demoBytes)
	read := func(until int) {
		t.Helper()
		for f.done < until {
			if _, err := f.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	read(demoBytes/2 - feedPiece)
	select {
	case <-f.half:
		t.Error("it kills before half is read")
	default:
	}
	read(demoBytes / 2)
	select {
	case <-f.half:
	default:
		t.Error("half is read and it does not kill")
	}
	read(demoBytes * 3 / 4)
	if f.dead {
		t.Error("it takes the node for dead")
	}
	killed <- nil
	read(demoBytes)
	if _, err := f.Read(buf); !errors.Is(err, io.EOF) || !f.dead {
		t.Errorf("at the end: %v, dead %t", err, f.dead)
	}
	broken := errors.New("no such container")
	g := &feed{data: newData(), half: make(chan struct{}), killed: killed, done: demoBytes * 3 / 4}
	killed <- broken
	if _, err := g.Read(buf); !errors.Is(err, broken) {
		t.Errorf("a kill that fails: %v", err)
	}
}
