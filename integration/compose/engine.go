package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultEngineDir is where an engine of our own keeps everything. Its socket's path must be short.
	defaultEngineDir = "/var/tmp/clade-engine"

	engineStartMax = time.Minute
	engineStopMax  = 30 * time.Second
)

// missingError says what is not there, and what to install.
type missingError struct{ what string }

func (e *missingError) Error() string {
	return e.what + "; on Debian and Ubuntu: apt-get install docker.io docker-compose iptables iproute2 (as root, an engine is then started when none runs)"
}

func missing(format string, args ...any) error { return &missingError{fmt.Sprintf(format, args...)} }

// engine is a Docker engine and the clients for it.
type engine struct {
	dir     string   // of an engine of our own
	own     bool     // this is it
	compose []string // docker-compose, or docker compose
}

// newEngine returns the clients for an engine; one of our own would be in dir. An error of type *missingError says what has to
// be installed.
func newEngine(ctx context.Context, dir string) (*engine, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, missing("the docker client is not installed")
	}
	for _, compose := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.CommandContext(ctx, compose[0], append(compose[1:], "version")...).Run() == nil { //nolint:gosec // docker
			return &engine{dir: dir, compose: compose}, nil
		}
	}
	return nil, missing("neither docker-compose nor the compose plugin of docker is installed")
}

// find chooses the engine that runs: our own, else the one that the docker client talks to. It returns false if neither does.
func (e *engine) find(ctx context.Context) (bool, error) {
	host := os.Getenv("DOCKER_HOST")
	e.own = host == "" && e.pid() != 0
	switch {
	case e.answers(ctx):
		return true, nil
	case host != "":
		return false, fmt.Errorf("no Docker engine answers at DOCKER_HOST=%s: start it, or unset DOCKER_HOST", host)
	case e.own:
		return false, fmt.Errorf("the engine in %s runs and does not answer: %s", e.dir, e.logTail())
	}
	return false, nil
}

func (e *engine) socket() string { return filepath.Join(e.dir, "docker.sock") }

// env is the environment of the clients.
func (e *engine) env() []string {
	if !e.own {
		return os.Environ()
	}
	return append(os.Environ(), "DOCKER_HOST=unix://"+e.socket())
}

func (e *engine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // docker
	cmd.Env = e.env()
	return cmd
}

// docker runs a docker command and returns what it printed.
func (e *engine) docker(ctx context.Context, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := e.command(ctx, "docker", args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

func (e *engine) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := e.docker(ctx, "version", "--format", "{{.Server.Version}}")
	return err == nil
}

// start starts an engine of our own, in a network namespace of its own, so that its bridges and packet filter touch nothing of
// this machine's network. It goes on when this process ends. An error of type *missingError says what has to be installed.
func (e *engine) start(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return missing("no Docker engine answers, and only root can start one")
	}
	for _, tool := range []string{"dockerd", "iptables", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return missing("no Docker engine answers, and %s, which one needs, is not installed", tool)
		}
	}
	e.own = true
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(e.dir, "dockerd.log"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // dockerd has its own descriptor
	cmd := exec.Command("sh", "-c", `ip link set lo up && exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/dockerd.pid" -H "unix://$1/docker.sock"`, "sh", e.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, engineStartMax)
	defer cancel()
	for !e.answers(ctx) {
		select {
		case err := <-ended:
			return fmt.Errorf("dockerd does not run here: %w: %s", err, e.logTail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("dockerd does not answer: %w: %s", ctx.Err(), e.logTail()), e.stop())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// logTail returns the last lines of dockerd's log.
func (e *engine) logTail() string {
	raw, err := os.ReadFile(filepath.Join(e.dir, "dockerd.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// pid returns the process of our engine, or 0: a number in a file may be another process's by now.
func (e *engine) pid() int {
	raw, err := os.ReadFile(filepath.Join(e.dir, "dockerd.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), "unix://"+e.socket()) {
		return 0
	}
	return pid
}

// stop ends the engine if it is ours, with all its containers, and removes its files.
func (e *engine) stop() error {
	if !e.own {
		return nil
	}
	if pid := e.pid(); pid != 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			return fmt.Errorf("stop dockerd: %w", err)
		}
		deadline := time.Now().Add(engineStopMax)
		for e.pid() == pid {
			if time.Now().After(deadline) {
				return fmt.Errorf("dockerd, process %d, does not end: see %s", pid, filepath.Join(e.dir, "dockerd.log"))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if err := e.unmount(); err != nil {
		return err
	}
	return os.RemoveAll(e.dir)
}

// unmount removes the mounts that dockerd leaves in its directory.
func (e *engine) unmount() error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(raw), "\n")
	slices.Reverse(lines) // the newest first
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], e.dir+"/") {
			if err := unix.Unmount(fields[4], 0); err != nil {
				return fmt.Errorf("unmount %s: %w", fields[4], err)
			}
		}
	}
	return nil
}
