package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The lab's volume: the compose file's client writes to its last MiB.
const (
	volumeSlot  = "1"
	volumeName  = "e7.1"
	volumeSize  = "512MiB"
	clientName  = "client"
	awaitMax    = 2 * time.Minute
	lookPause   = 200 * time.Millisecond
	stopSeconds = "1" // how long `down` lets a node hand over before it is killed: nothing is left to take over
)

var nodeNames = []string{"n1", "n2", "n3"}

// lab is the compose project on an engine.
type lab struct {
	*engine
	project string // directory of the compose file
	extra   []string
	ids     map[string]string // container of each service
	network string            // of the SAN
}

// status is what the lab reads of `clade status --json`.
type status struct {
	Health string `json:"health"`
	Nodes  []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"nodes"`
	Volumes []struct {
		Address string `json:"address"`
		Owner   string `json:"owner_name"`
		Active  bool   `json:"active"`
		Health  string `json:"health"`
	} `json:"volumes"`
	SAN []struct {
		Device string `json:"device"` // name of the interface
		Err    string `json:"err"`
	} `json:"san"`
	Problems []struct {
		What string `json:"what"`
	} `json:"problems"`
}

// owner returns the node that serves the lab's volume; nothing if none does.
func (s *status) owner() string {
	for _, v := range s.Volumes {
		if v.Address == volumeName && v.Active {
			return v.Owner
		}
	}
	return ""
}

// healthy says that all nodes are up and everything is as it should be.
func (s *status) healthy() bool {
	up := 0
	for _, n := range s.Nodes {
		if n.State == "up" {
			up++
		}
	}
	return s.Health == "healthy" && up == len(nodeNames)
}

// newLab returns the project in the directory that holds docker-compose.yml, on an engine. extra overrides the environment.
func newLab(e *engine, project string, extra ...string) *lab {
	return &lab{engine: e, project: project, extra: extra, ids: map[string]string{}}
}

// projectDir finds the compose file's directory from anywhere in the checkout.
func projectDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), "module clade\n") {
			return filepath.Join(dir, "integration", "compose"), nil
		}
	}
	return "", errors.New("this is not a checkout of Clade")
}

// runCompose runs a compose command in the project's directory, where .env is, and returns what it printed.
func (l *lab) runCompose(ctx context.Context, args ...string) (string, error) {
	all := append(append([]string{}, l.compose...), args...)
	cmd := l.command(ctx, all[0], all[1:]...)
	cmd.Dir = l.project
	cmd.Env = append(append(l.env(), "CLADE_STAGE="+stage()), l.extra...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(all, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// stage is the stage of the Dockerfile to build: here bin/clade is at hand.
func stage() string {
	if s := os.Getenv("CLADE_STAGE"); s != "" {
		return s
	}
	return "local"
}

// find learns the containers of the project; false if not all of them are there.
func (l *lab) find(ctx context.Context) (bool, error) {
	for _, name := range append([]string{clientName}, nodeNames...) {
		out, err := l.runCompose(ctx, "ps", "-a", "-q", name)
		if err != nil {
			return false, err
		}
		if l.ids[name] = strings.TrimSpace(out); l.ids[name] == "" {
			return false, nil
		}
	}
	out, err := l.docker(ctx, "inspect", "--format", `{{range $name, $n := .NetworkSettings.Networks}}{{$name}}{{end}}`, l.ids[clientName])
	l.network = strings.TrimSpace(out) // the client is on the SAN alone
	return true, err
}

// up builds the image, starts everything, and makes the volume if there is none.
func (l *lab) up(ctx context.Context) error {
	if _, err := l.runCompose(ctx, "build"); err != nil {
		return err
	}
	if _, err := l.runCompose(ctx, "up", "-d"); err != nil {
		return err
	}
	if all, err := l.find(ctx); err != nil || !all {
		return errors.Join(errors.New("not all containers run: see docker ps -a"), err)
	}
	s, err := l.await(ctx, "three nodes", (*status).healthy)
	if err != nil || len(s.Volumes) > 0 {
		return err
	}
	if _, err := l.clade(ctx, "n1", "volume", "create", "--slot", volumeSlot, "--size", volumeSize, "--layout", "2+1"); err != nil {
		return err
	}
	_, err = l.await(ctx, "the volume", func(s *status) bool { return s.healthy() && s.owner() != "" })
	return err
}

// down removes everything, the disks included, and our engine.
func (l *lab) down(ctx context.Context) error {
	_, err := l.runCompose(ctx, "down", "-v", "--remove-orphans", "-t", stopSeconds)
	return errors.Join(err, l.stop())
}

// clade runs a clade command in a service's container and returns what it printed.
func (l *lab) clade(ctx context.Context, service string, args ...string) (string, error) {
	return l.docker(ctx, append([]string{"exec", l.ids[service], "/clade"}, args...)...)
}

// stream runs a clade command in a service's container with these ends.
func (l *lab) stream(ctx context.Context, service string, in io.Reader, out io.Writer, args ...string) error {
	cmd := l.command(ctx, "docker", append([]string{"exec", "-i", l.ids[service], "/clade"}, args...)...)
	var errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &errOut
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("clade %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return nil
}

// status asks one node. What it answers while the cluster is not well comes with exit code 4.
func (l *lab) status(ctx context.Context, node string) (*status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := l.clade(ctx, node, "status", "--json")
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 4) {
		return nil, err
	}
	s := &status{}
	if err := json.Unmarshal([]byte(out), s); err != nil {
		return nil, fmt.Errorf("status of %s: %w", node, err)
	}
	return s, nil
}

// await asks the nodes but those named, in turn, until it is so, and returns that status. what is for people.
func (l *lab) await(ctx context.Context, what string, so func(*status) bool, but ...string) (*status, error) {
	ctx, cancel := context.WithTimeout(ctx, awaitMax)
	defer cancel()
	last := errors.New("no node was asked")
	for {
		for _, node := range nodeNames {
			if len(but) > 0 && but[0] == node {
				continue
			}
			s, err := l.status(ctx, node)
			if err == nil && so(s) {
				return s, nil
			}
			last = err
			if s != nil {
				last = fmt.Errorf("%s says: %s, served by %q, %+v", node, s.Health, s.owner(), s.Problems)
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no sign of %s in %s: %w", what, awaitMax, last)
		case <-time.After(lookPause):
		}
	}
}
