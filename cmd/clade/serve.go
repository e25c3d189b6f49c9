package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"clade/cluster/runtime"
)

// serveFlags are the flags of serve. The worker gets the same ones as the guardian.
type serveFlags struct {
	dir                           string
	worker, restart               bool
	volatileCache, faultSocket    bool
	logLevel, logFormat, adminTCP string
	listen, advertise             string
	san                           []string
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run this node",
		Long: `Run this node from the data directory that 'clade init' or 'clade join' has prepared.

Two processes run: a worker, and a guardian that waits for it. When the worker
dies, the guardian proves its death to the other nodes, so that they take its
volumes over within tens of milliseconds; then it exits with code 10, for systemd
to start it again, or starts the worker again itself (--restart).

SIGTERM or SIGINT hands all volumes over to other nodes, for at most timing.drain
(10 s), then stops. A second signal stops at once.`,
		Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.worker {
				return f.runWorker(cmd)
			}
			return f.runGuardian(cmd)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", envOr("CLADE_DIR", defaultDir), "data directory (also CLADE_DIR)")
	fl.BoolVar(&f.restart, "restart", false, "start the worker again when it dies")
	fl.StringVar(&f.listen, "listen", "", "instead of listen in config.toml")
	fl.StringVar(&f.advertise, "advertise", "", "instead of advertise in config.toml")
	fl.StringSliceVar(&f.san, "san", nil, "instead of san in config.toml")
	fl.StringVar(&f.logLevel, "log-level", "", "instead of log.level in config.toml: debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "", "instead of log.format in config.toml: text or json")
	fl.StringVar(&f.adminTCP, "admin-tcp", "", "instead of admin.tcp in config.toml")
	fl.BoolVar(&f.worker, "worker", false, "be the worker, without a guardian")
	fl.BoolVar(&f.volatileCache, "volatile-cache", false, "lose unsynced writes when killed, as in a power cut")
	fl.BoolVar(&f.faultSocket, "fault-socket", false, "let the admin API inject disk faults")
	for _, name := range []string{"worker", "volatile-cache", "fault-socket"} {
		_ = fl.MarkHidden(name) // fails only for a flag that does not exist
	}
	return cmd
}

// config loads the configuration and applies the flags.
func (f *serveFlags) config() (runtime.Config, error) {
	c, err := runtime.LoadConfig(f.dir)
	if err != nil {
		return c, failure(exitUsage, "", "%w", err)
	}
	set := func(p *string, v string) {
		if v != "" {
			*p = v
		}
	}
	set(&c.Listen, f.listen)
	set(&c.Advertise, f.advertise)
	set(&c.Log.Level, f.logLevel)
	set(&c.Log.Format, f.logFormat)
	set(&c.Admin.TCP, f.adminTCP)
	if len(f.san) > 0 {
		c.SAN = f.san
	}
	if err := c.Validate(); err != nil {
		return c, failure(exitUsage, "Correct "+f.dir+"/config.toml, or the flags.", "%w", err)
	}
	return c, nil
}

func (f *serveFlags) runGuardian(cmd *cobra.Command) error {
	c, err := f.config() // what is wrong with it is said once, here
	if err != nil {
		return err
	}
	log, err := runtime.NewLogger(cmd.ErrOrStderr(), c.Log)
	if err != nil {
		return failure(exitUsage, "", "%w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("which binary is this? %w", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	code, err := runtime.Guard(runtime.GuardianOptions{Dir: f.dir, Command: append([]string{self, "serve", "--worker"}, f.workerArgs()...),
		Restart: f.restart, First: c.Priority == runtime.PriorityHigh, Log: log.With("role", "guardian"), Signals: signals})
	if err != nil {
		return err
	}
	if code == runtime.ExitWorkerDied {
		return failure(code, "Its log says why. Start the node again, or let systemd do it; or use --restart.", "the worker has ended by itself")
	}
	if code != 0 {
		return &cliError{code: code, err: fmt.Errorf("the worker ended with code %d; its log says why", code)}
	}
	return nil
}

// workerArgs repeats the flags for the worker.
func (f *serveFlags) workerArgs() []string {
	args := []string{"--dir", f.dir}
	add := func(name, v string) {
		if v != "" {
			args = append(args, name, v)
		}
	}
	add("--listen", f.listen)
	add("--advertise", f.advertise)
	add("--log-level", f.logLevel)
	add("--log-format", f.logFormat)
	add("--admin-tcp", f.adminTCP)
	add("--san", strings.Join(f.san, ","))
	if f.volatileCache {
		args = append(args, "--volatile-cache")
	}
	if f.faultSocket {
		args = append(args, "--fault-socket")
	}
	return args
}

// gcPercent is Go's GOGC: the heap is mostly stripe cache, in which there is little for the collector to look at, and memory that is used
// for the first time costs more than memory that is used again.
const gcPercent = 50

func (f *serveFlags) runWorker(cmd *cobra.Command) error {
	c, err := f.config()
	if err != nil {
		return err
	}
	log, err := runtime.NewLogger(cmd.ErrOrStderr(), c.Log)
	if err != nil {
		return failure(exitUsage, "", "%w", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	r, err := runtime.Start(runtime.Options{Dir: f.dir, Config: c, Log: log, VolatileCache: f.volatileCache, FaultSocket: f.faultSocket})
	if err != nil {
		return err
	}
	select {
	case <-r.Done():
		return r.Err()
	case sig := <-signals:
		log.Info("stopping", "signal", sig.String())
	}
	drainThenStop(r, time.Duration(c.Timing.Drain), signals, log)
	return r.Err()
}

// drainThenStop hands all volumes over, as long as it is allowed to take, and stops.
func drainThenStop(r *runtime.Runtime, bound time.Duration, signals <-chan os.Signal, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := r.Drain(ctx); err != nil {
		log.Warn("stopping although not everything was handed over", "err", err)
	}
	r.Stop()
}
