package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Bounds of what Up waits for.
const (
	commandMax = 30 * time.Second
	bootMax    = 30 * time.Second
	healthyMax = 60 * time.Second
)

// ErrNeedsRoot says that namespaces cannot be made.
var ErrNeedsRoot = errors.New("a lab needs root, for network namespaces: run it with sudo")

// Up builds a lab and returns it when all its volumes are healthy. What it has made is taken down again when it fails or when
// ctx ends. tell, if not nil, is told of each step.
func Up(ctx context.Context, spec Spec, tell func(string)) (*Lab, error) {
	if tell == nil {
		tell = func(string) {}
	}
	if os.Geteuid() != 0 {
		return nil, ErrNeedsRoot
	}
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(spec.Dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	spec.Dir = dir
	if spec.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("lab: this program's path: %w", err)
		}
		spec.Binary = self
	}
	if _, err := Sweep(); err != nil {
		tell("what a killed lab has left cannot be removed: " + err.Error()) // another lab's trouble, not this one's
	}
	l, err := claim(spec)
	if err != nil {
		return nil, err
	}
	if err = l.make(ctx, tell); err == nil {
		return l, nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("lab %s: interrupted: %w", spec.Name, ctx.Err())
	}
	return nil, errors.Join(err, l.remove())
}

// make does what Up promises, after the lab is claimed.
func (l *Lab) make(ctx context.Context, tell func(string)) error {
	tell("network")
	if err := l.buildNetwork(); err != nil {
		return err
	}
	for i := range l.Nodes {
		if err := l.makeFiles(i); err != nil {
			return err
		}
	}
	tell("cluster")
	for i := range l.Nodes {
		args := l.initArgs()
		if i > 0 {
			args = l.joinArgs(i)
		}
		if _, err := l.Run(ctx, i, args); err != nil {
			return err
		}
		if err := l.Serve(i); err != nil {
			return err
		}
		if err := l.awaitUp(ctx, i); err != nil {
			return err
		}
	}
	for slot := 1; slot <= l.Spec.Slots; slot++ {
		if _, err := l.Run(ctx, 0, l.volumeArgs(l.Nodes[0].Name, slot)); err != nil {
			return err
		}
	}
	tell("health")
	healthy, cancel := context.WithTimeout(ctx, healthyMax+l.Spec.blankMax())
	defer cancel()
	if err := AwaitHealthy(healthy, l); err != nil {
		return l.withLogs(err)
	}
	l.Phase = phaseUp
	if err := l.save(); err != nil {
		return err
	}
	if !l.Spec.Held {
		l.release()
	}
	return nil
}

// makeFiles makes a node's directory and its disks: sparse files.
func (l *Lab) makeFiles(i int) error {
	n := &l.Nodes[i]
	if err := os.MkdirAll(l.path(n.Name), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := l.mountSmall(i); err != nil {
		return err
	}
	for d := range l.Spec.Disks {
		if n.Witness {
			break
		}
		f, err := os.OpenFile(l.diskPath(n.Name, d), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = f.Truncate(int64(l.Spec.diskBytes()))
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil {
			return fmt.Errorf("lab: disk %d of %s: %w", d+1, n.Name, err)
		}
	}
	return nil
}

// Run runs a command of the program in the i-th node's namespace until it ends, and returns what it printed.
func (l *Lab) Run(ctx context.Context, i int, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandMax)
	defer cancel()
	var out, errText strings.Builder
	cmd := l.command(l.Nodes[i].Name, args)
	cmd.Stdout, cmd.Stderr = &out, &errText
	if err := inside(l.nodeNamespace(i), cmd.Start); err != nil {
		return "", fmt.Errorf("lab: start clade %s: %w", strings.Join(args, " "), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended
	err := cmd.Wait()
	stop()
	if err != nil {
		return out.String(), fmt.Errorf("lab: clade %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(errText.String()))
	}
	return out.String(), nil
}

// Serve starts the i-th node. Its output goes to the node's log.
func (l *Lab) Serve(i int) error {
	n := &l.Nodes[i]
	log, err := os.OpenFile(l.LogPath(n.Name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("lab: log of %s: %w", n.Name, err)
	}
	defer log.Close() //nolint:errcheck // the node has it
	cmd := l.command(n.Name, l.serveArgs(i))
	cmd.Stdout, cmd.Stderr = log, log
	if err := inside(l.nodeNamespace(i), cmd.Start); err != nil {
		return fmt.Errorf("lab: start %s: %w", n.Name, err)
	}
	go reap(cmd)
	p, err := readProcess(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("lab: %s ended at once; see %s: %w", n.Name, log.Name(), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n.Process = p
	return l.save()
}

// reap waits for a child; how it ended is in its log and in the next status.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() }

// LogPath returns where a node's output is.
func (l *Lab) LogPath(node string) string { return l.path(node, "log") }

// awaitUp waits until the i-th node takes part in the cluster.
func (l *Lab) awaitUp(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, bootMax)
	defer cancel()
	name := l.Nodes[i].Name
	last := "it does not answer"
	for {
		s, err := l.AskNode(ctx, name)
		if err == nil {
			last = Summary(s)
			for _, n := range s.Nodes {
				if n.Name == name && n.State == "up" {
					return nil
				}
			}
		}
		if !l.Nodes[i].Process.runs() {
			return l.withLogs(fmt.Errorf("lab: node %s ended", name))
		}
		select {
		case <-time.After(statusRetryMs * time.Millisecond):
		case <-ctx.Done():
			return l.withLogs(fmt.Errorf("lab: node %s is not up: %s", name, last))
		}
	}
}

const logTailBytes = 2000

// withLogs adds the end of every node's log to an error: the files are about to go.
func (l *Lab) withLogs(err error) error {
	text := ""
	for i := range l.Nodes {
		f, ferr := os.Open(l.LogPath(l.Nodes[i].Name))
		if ferr != nil {
			continue // never started
		}
		if end, serr := f.Seek(0, io.SeekEnd); serr == nil {
			_, _ = f.Seek(max(0, end-logTailBytes), io.SeekStart) // else all of it
		}
		raw, _ := io.ReadAll(io.LimitReader(f, logTailBytes)) // as much as there is
		_ = f.Close()
		text += fmt.Sprintf("\n--- log of %s\n%s", l.Nodes[i].Name, raw)
	}
	return fmt.Errorf("%w%s", err, text)
}
