// Command compose runs Clade's lab in containers: `go run ./integration/compose up`, `demo` or `down`.
//
// It uses the Docker engine that answers; where none does, root's dockerd is started in a network namespace of its own, and
// ended by `down`. Nothing else that runs is touched.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = "usage: go run ./integration/compose up | demo | down"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "compose:", err)
		var m *missingError
		if errors.As(err, &m) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, args []string) error {
	if len(args) != 1 || args[0] != "up" && args[0] != "demo" && args[0] != "down" {
		return errors.New(usage)
	}
	project, err := projectDir()
	if err != nil {
		return err
	}
	e, err := newEngine(ctx, defaultEngineDir)
	if err != nil {
		return err
	}
	running, err := e.find(ctx)
	if err != nil {
		return err
	}
	if !running {
		if args[0] == "down" {
			return nil // then nothing of the lab runs either
		}
		fmt.Fprintln(w, "No Docker engine runs: starting one for the lab alone, in a network namespace of its own.")
		if err := e.start(ctx); err != nil {
			return err
		}
	}
	l := newLab(e, project)
	switch args[0] {
	case "up":
		if err := l.up(ctx); err != nil {
			return err
		}
		l.howToUse(w)
		return nil
	case "demo":
		return runDemo(ctx, w, l)
	}
	return l.down(ctx)
}

// howToUse says what to do with a lab that is up.
func (l *lab) howToUse(w io.Writer) {
	if l.own {
		fmt.Fprintf(w, "No Docker engine ran, so one was started for the lab alone. To talk to it:\n    export DOCKER_HOST=unix://%s\n", l.socket())
	}
	fmt.Fprintf(w, `Three nodes serve %[1]s (%[2]s, layout 2+1). See:
    docker exec %[3]s /clade status
    docker logs -f --tail 3 %[4]s      # an initiator that writes all the time: how long the volume stands still
    docker kill|pause|stop %[3]s       # or: docker network disconnect %[5]s %[3]s
Take it down: make compose-down
`, volumeName, volumeSize, l.name("n1"), l.name(clientName), l.network)
}

// name is a container's id as people can type it.
func (l *lab) name(service string) string { return l.ids[service][:min(12, len(l.ids[service]))] }
