// Command agent is the first process of a guest: it mounts what a system needs, loads the modules that the image lists, and
// does what the host says, one JSON line for a job and one for its result, over the second serial port.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// job is what the host wants; just one of its fields is set.
type job struct {
	ID      int      `json:"id"`
	Run     string   `json:"run,omitempty"`     // a script for the shell
	Start   *loadJob `json:"start,omitempty"`   // a load
	Measure string   `json:"measure,omitempty"` // what a load has seen since it was asked last
	Stop    string   `json:"stop,omitempty"`    // ends a load, verifies what it wrote, and measures
	Off     bool     `json:"off,omitempty"`     // switches the machine off
	Seconds int      `json:"seconds,omitempty"` // limit of a script
}

// result is what came of a job.
type result struct {
	ID      int      `json:"id"`
	Exit    int      `json:"exit"`
	Output  string   `json:"output,omitempty"`
	Error   string   `json:"error,omitempty"`
	Measure *measure `json:"measure,omitempty"`
}

func main() {
	if err := serve(); err != nil {
		fmt.Println("agent:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // nothing is left to tell it to
}

func serve() error {
	if err := setUp(); err != nil {
		return err
	}
	port, err := openPort("/dev/ttyS1")
	if err != nil {
		return err
	}
	replies := make(chan result)
	go func() {
		enc := json.NewEncoder(port)
		for r := range replies {
			if err := enc.Encode(r); err != nil {
				fmt.Println("agent: reply:", err)
			}
		}
	}()
	fmt.Println("agent: ready")
	replies <- result{} // the host waits for it
	loads := map[string]*load{}
	in := bufio.NewScanner(port)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var j job
		if err := json.Unmarshal(in.Bytes(), &j); err != nil {
			continue // noise on the line
		}
		switch {
		case j.Off:
			replies <- result{ID: j.ID}
			return nil
		case j.Start != nil:
			l, err := startLoad(*j.Start)
			if err == nil {
				loads[j.Start.Name] = l
			}
			replies <- outcome(j.ID, nil, err)
		case j.Measure != "" || j.Stop != "":
			l := loads[j.Measure+j.Stop]
			if l == nil {
				replies <- outcome(j.ID, nil, fmt.Errorf("no load %q", j.Measure+j.Stop))
				continue
			}
			go func() {
				if j.Stop != "" {
					l.stop()
				}
				m := l.take()
				replies <- outcome(j.ID, &m, nil)
			}()
		default:
			go func() { replies <- run(&j) }()
		}
	}
	return in.Err()
}

func outcome(id int, m *measure, err error) result {
	r := result{ID: id, Measure: m}
	if err != nil {
		r.Exit, r.Error = 1, err.Error()
	}
	return r
}

// run executes a script.
func run(j *job) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(max(j.Seconds, 1))*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", j.Run)
	cmd.Env = []string{"PATH=/sbin:/bin:/usr/sbin:/usr/bin", "HOME=/"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	r := outcome(j.ID, nil, err)
	r.Output = out.String()
	if err != nil && cmd.ProcessState != nil {
		r.Exit = cmd.ProcessState.ExitCode()
	}
	return r
}

// setUp makes a system of the bare initramfs.
func setUp() error {
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"debugfs", "/sys/kernel/debug"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil && m.fs != "debugfs" {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := exec.Command("/bin/busybox", "--install", "-s").Run(); err != nil {
		return fmt.Errorf("busybox: %w", err)
	}
	list, err := os.ReadFile("/modules/list")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close() // only read
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

// openPort opens a serial port as a pipe of bytes.
func openPort(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}
