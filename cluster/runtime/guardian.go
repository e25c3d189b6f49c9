package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clade/raid"
)

// ExitWorkerDied is the guardian's exit code when its worker ended without having been told to.
const ExitWorkerDied = 10

const (
	lockWaitMax    = 2 * time.Second        // from the worker's death to its lock being free: the kernel's own cleaning up
	announceMax    = 500 * time.Millisecond // for telling all peers
	restartMin     = 100 * time.Millisecond
	restartMax     = 5 * time.Second
	restartForgets = 10 * time.Second // a worker that lived so long is restarted at once
)

// GuardianOptions configures Guard.
type GuardianOptions struct {
	Dir     string
	Command []string // the worker's command line
	Restart bool     // start the worker again when it dies, instead of exiting
	First   bool     // the guardian and its worker go before what else runs on the host, if the system allows it
	Log     *slog.Logger
	// Signals are passed on: the first ends the worker gracefully, a second one at once. The guardian then exits as the
	// worker did.
	Signals <-chan os.Signal
}

// Guard runs a worker until it ends and returns the code to exit with. Whenever the worker has ended, the guardian proves the
// end of its term (A.2 Proof of death) and tells all peers, so that they need not wait for its lease to run out, nor for its
// disks' connections. A guardian that dies leaves its worker running; the next death then costs time and nothing else.
func Guard(opt GuardianOptions) (int, error) {
	if opt.First {
		goFirst(opt.Log)
	}
	pause := restartMin
	for {
		began := bootNs()
		code, asked, err := guardOnce(&opt)
		if err != nil {
			return code, err
		}
		asked = asked || code == 0
		if !asked {
			opt.Log.Error("the worker has ended by itself", "code", code)
		}
		// The proof is taken before a new worker may take the lock; telling it takes longer and goes on beside the restart.
		told := tellDeath(&opt)
		switch {
		case asked:
			<-told
			return code, nil
		case !opt.Restart:
			<-told
			return ExitWorkerDied, nil
		}
		if bootNs()-began > int64(restartForgets) {
			pause = restartMin
		}
		opt.Log.Info("starting the worker again", "pause", pause)
		select {
		case <-time.After(pause):
		case <-opt.Signals:
			<-told
			return 0, nil
		}
		pause = min(2*pause, restartMax)
	}
}

// tellDeath takes the proof of the worker's death and tells the peers; the channel is closed when that is done.
func tellDeath(opt *GuardianOptions) <-chan struct{} {
	told := make(chan struct{})
	d, err := proveDeath(opt.Dir)
	if err != nil {
		opt.Log.Warn("no proof of the worker's death: the others wait for its lease to run out", "err", err)
		close(told)
		return told
	}
	go func() {
		defer close(told)
		announceDeath(d, opt.Log)
	}()
	return told
}

// guardOnce starts a worker and waits for its end. asked says that a signal to the guardian ended it.
func guardOnce(opt *GuardianOptions) (code int, asked bool, err error) {
	pidfd := -1
	cmd := exec.Command(opt.Command[0], opt.Command[1:]...) //nolint:gosec // our own binary
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	// Its own process group: an interrupt at the terminal reaches it through the guardian only. The pidfd comes from clone
	// itself, so it can never mean another process.
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 1, false, fmt.Errorf("runtime: start the worker: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if pidfd >= 0 {
			waitPidFD(pidfd)
		}
		err = cmd.Wait()
	}()
	for signals := 0; ; {
		select {
		case <-ended:
			if pidfd >= 0 {
				_ = unix.Close(pidfd)
			}
			return exitCode(cmd, err), signals > 0, nil
		case sig, ok := <-opt.Signals:
			if !ok {
				opt.Signals = nil
				continue
			}
			signals++
			opt.Log.Info("stopping the worker", "signal", sig.String(), "graceful", signals == 1)
			if signals > 2 {
				_ = cmd.Process.Kill() // it may have ended by itself meanwhile
			} else {
				_ = cmd.Process.Signal(unix.SIGTERM)
			}
		}
	}
}

// exitCode returns a worker's exit code as a shell would show it.
func exitCode(cmd *exec.Cmd, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return 1
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// waitPidFD returns when the process has ended.
func waitPidFD(fd int) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(p, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return // an error leaves the waiting to cmd.Wait
		}
	}
}

// death is what the guardian can prove.
type death struct {
	id    Identity
	term  raid.Term
	peers []Peer
}

// proveDeath waits for the dead worker's lock and checks what it wrote.
func proveDeath(dir string) (death, error) {
	var d death
	var err error
	if d.id, err = loadIdentity(dir); err != nil {
		return d, err
	}
	bootID, err := readBootID()
	if err != nil {
		return d, err
	}
	s, err := awaitState(dir, bootID, int64(lockWaitMax))
	if err != nil {
		return d, err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	if d.term = s.proof(d.id.Cluster, d.id.Node); d.term == 0 {
		return d, errors.New("runtime: the state file proves nothing: the worker had no term, or the file is a copy or not on a local file system")
	}
	d.peers = d.id.Seeds
	var known []Peer
	if err := loadJSON(filepath.Join(dir, peersFileName), &known); err == nil && len(known) > 0 {
		d.peers = known
	}
	return d, nil
}

// announceDeath tells all peers that the worker's term is over.
func announceDeath(d death, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), announceMax)
	defer cancel()
	var wg sync.WaitGroup
	told := make([]bool, len(d.peers))
	for i, p := range d.peers {
		if p.Node == d.id.Node {
			continue
		}
		wg.Go(func() {
			if err := sendDeath(ctx, d, p); err != nil {
				log.Debug("could not tell a peer of the worker's death", "node", p.Node, "err", err)
				return
			}
			told[i] = true
		})
	}
	wg.Wait()
	n := 0
	for _, ok := range told {
		if ok {
			n++
		}
	}
	log.Info("told the peers of the worker's death", "term", d.term, "peers", n)
}
