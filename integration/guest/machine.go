package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Nic plugs a guest into a switch: the bridge of one SAN path.
type Nic struct {
	Bridge string // in the machine's namespace
	MTU    int
}

// Spec describes a machine.
type Spec struct {
	Image *Image
	Dir   string // for its sockets and its console; must exist
	Name  string // at most 8 letters: its taps are named after it
	Space string // network namespace of the bridges
	Nics  []Nic
	MiB   int    // memory; default 768
	Drive string // path of a file of the host that is the guest's /dev/vda, read only; none if empty
	// Firmware and Script, if set, are iPXE as a kernel (ipxe.lkrn) and what it shall do, instead of the image's kernel.
	Firmware, Script string
}

// Machine is a running guest. Any goroutine may call its methods.
type Machine struct {
	spec Spec
	cmd  *exec.Cmd
	exit chan struct{} // closed when QEMU has ended

	closing  sync.Once
	closeErr error

	mu      sync.Mutex
	conn    net.Conn
	next    int
	waiting map[int]chan result
}

// Measure is what a load saw since it was asked last.
type Measure struct {
	Operations int      `json:"operations"` // since it was started
	Bytes      int64    `json:"bytes"`      // since it was started
	LongestMs  float64  `json:"longest_ms"` // longest operation, one that still waits included
	Errors     []string `json:"errors"`
}

// Load describes a load in a guest: see the agent's loadJob.
type Load struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // probe or files
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Seed  uint64 `json:"seed"`
}

type job struct {
	ID      int    `json:"id"`
	Run     string `json:"run,omitempty"`
	Start   *Load  `json:"start,omitempty"`
	Measure string `json:"measure,omitempty"`
	Stop    string `json:"stop,omitempty"`
	Off     bool   `json:"off,omitempty"`
	Seconds int    `json:"seconds,omitempty"`
}

type result struct {
	ID      int      `json:"id"`
	Exit    int      `json:"exit"`
	Output  string   `json:"output"`
	Error   string   `json:"error"`
	Measure *Measure `json:"measure"`
}

// lifeMax bounds a machine's life, in the form of timeout(1).
const lifeMax = "40m"

// kernelArgs is the command line of every guest's kernel.
const kernelArgs = "console=ttyS0 panic=-1 loglevel=5 rdinit=/init"

// Boot starts a machine and waits until its agent answers. Close it in the end.
func Boot(ctx context.Context, spec Spec) (*Machine, error) {
	if spec.MiB == 0 {
		spec.MiB = 768
	}
	m := &Machine{spec: spec, exit: make(chan struct{}), waiting: map[int]chan result{}}
	// A test run that is killed leaves nothing for longer than lifeMax.
	args := []string{lifeMax, "ip", "netns", "exec", spec.Space, "qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "1",
		"-m", strconv.Itoa(spec.MiB), "-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + m.ConsolePath(), "-serial", "unix:" + m.socket() + ",server=on,wait=off"}
	if spec.Firmware != "" {
		args = append(args, "-kernel", spec.Firmware, "-initrd", spec.Script)
	} else {
		args = append(args, "-kernel", spec.Image.Kernel, "-initrd", spec.Image.Initrd, "-append", kernelArgs)
	}
	if spec.Drive != "" {
		args = append(args, "-drive", "if=virtio,format=raw,readonly=on,file="+spec.Drive)
	}
	for i, n := range spec.Nics {
		if err := m.addTap(ctx, i, n); err != nil {
			return nil, errors.Join(err, m.removeTaps())
		}
		args = append(args, "-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no", i, m.tap(i)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,host_mtu=%d,romfile=", i, m.mac(i), n.MTU))
	}
	m.cmd = exec.Command("timeout", args...)
	var complaint bytes.Buffer
	m.cmd.Stderr = &complaint
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("guest %s: %w", spec.Name, err), m.removeTaps())
	}
	go func() {
		_ = m.cmd.Wait() // how it ended shows on its console
		close(m.exit)
	}()
	if err := m.connect(ctx); err != nil {
		err = fmt.Errorf("%w\n%s\n%s", err, complaint.String(), m.console())
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) tap(i int) string { return fmt.Sprintf("t%s%d", m.spec.Name, i) }
func (m *Machine) socket() string   { return filepath.Join(m.spec.Dir, m.spec.Name+".sock") }

// ConsolePath returns the file with what the machine's kernel has said.
func (m *Machine) ConsolePath() string { return filepath.Join(m.spec.Dir, m.spec.Name+".console") }

// mac derives an address from the machine's name.
func (m *Machine) mac(i int) string {
	sum := uint32(0)
	for _, c := range []byte(m.spec.Name) {
		sum = sum*31 + uint32(c)
	}
	return fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", byte(sum>>16), byte(sum>>8), byte(sum), i)
}

func (m *Machine) addTap(ctx context.Context, i int, n Nic) error {
	for _, args := range [][]string{
		{"tuntap", "add", "dev", m.tap(i), "mode", "tap"},
		{"link", "set", m.tap(i), "mtu", strconv.Itoa(n.MTU), "master", n.Bridge, "up"},
	} {
		if _, err := output(ctx, "", "ip", append([]string{"-n", m.spec.Space}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) removeTaps() error {
	var errs []error
	for i := range m.spec.Nics {
		_, err := output(context.Background(), "", "ip", "-n", m.spec.Space, "link", "del", m.tap(i))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *Machine) console() string {
	b, err := os.ReadFile(m.ConsolePath())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// connect waits for the agent's first line.
func (m *Machine) connect(ctx context.Context) error {
	for m.conn == nil {
		c, err := net.Dial("unix", m.socket())
		if err == nil {
			m.conn = c
			break
		}
		if err := m.pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	ready := make(chan result, 1)
	m.waiting[0] = ready
	go m.receive()
	select {
	case <-ready:
		return nil
	case <-m.exit:
		return fmt.Errorf("guest %s: ended before it was up", m.spec.Name)
	case <-ctx.Done():
		return fmt.Errorf("guest %s: not up: %w", m.spec.Name, ctx.Err())
	}
}

func (m *Machine) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-m.exit:
		return fmt.Errorf("guest %s: QEMU ended", m.spec.Name)
	case <-ctx.Done():
		return fmt.Errorf("guest %s: %w", m.spec.Name, ctx.Err())
	}
}

// receive hands results to who waits for them.
func (m *Machine) receive() {
	in := bufio.NewScanner(m.conn)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		line := in.Bytes()
		if i := bytes.IndexByte(line, '{'); i > 0 {
			line = line[i:] // what firmware said before
		}
		var r result
		if json.Unmarshal(line, &r) != nil {
			continue
		}
		m.mu.Lock()
		c := m.waiting[r.ID]
		delete(m.waiting, r.ID)
		m.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// do has the agent do a job.
func (m *Machine) do(ctx context.Context, j job) (*result, error) {
	c := make(chan result, 1)
	m.mu.Lock()
	m.next++
	j.ID = m.next
	m.waiting[j.ID] = c
	line, err := json.Marshal(j)
	if err == nil {
		_, err = m.conn.Write(append(line, '\n'))
	}
	m.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", m.spec.Name, err)
	}
	select {
	case r := <-c:
		if r.Error != "" {
			return &r, fmt.Errorf("guest %s: %s\n%s", m.spec.Name, r.Error, r.Output)
		}
		return &r, nil
	case <-m.exit:
		return nil, fmt.Errorf("guest %s: ended\n%s", m.spec.Name, m.console())
	case <-ctx.Done():
		return nil, fmt.Errorf("guest %s: %w\n%s", m.spec.Name, ctx.Err(), m.console())
	}
}

// Run executes a shell script (busybox sh) and returns what it printed. A script that fails is an error.
func (m *Machine) Run(ctx context.Context, script string) (string, error) {
	seconds := 120
	if t, ok := ctx.Deadline(); ok {
		seconds = int(time.Until(t).Seconds()) + 1
	}
	r, err := m.do(ctx, job{Run: script, Seconds: seconds})
	if r == nil {
		return "", err
	}
	return strings.TrimSpace(r.Output), err
}

// Start starts a load.
func (m *Machine) Start(ctx context.Context, l Load) error {
	_, err := m.do(ctx, job{Start: &l})
	return err
}

// Take returns what a load has seen since the last Take.
func (m *Machine) Take(ctx context.Context, load string) (*Measure, error) {
	return measured(m.do(ctx, job{Measure: load}))
}

// Stop ends a load: it reads everything back that it wrote. Returned is what it saw since the last Take.
func (m *Machine) Stop(ctx context.Context, load string) (*Measure, error) {
	return measured(m.do(ctx, job{Stop: load}))
}

func measured(r *result, err error) (*Measure, error) {
	if err != nil {
		return nil, err
	}
	return r.Measure, nil
}

// Freeze stops the machine between two instructions, as a hypervisor may, until Thaw. It does not know, but that time has passed.
func (m *Machine) Freeze() error { return m.signal(syscall.SIGSTOP) }

// Thaw lets a frozen machine go on.
func (m *Machine) Thaw() error { return m.signal(syscall.SIGCONT) }

// signal sends a signal to the process group that timeout(1) makes for itself and QEMU.
func (m *Machine) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-m.cmd.Process.Pid, sig); err != nil {
		return fmt.Errorf("guest %s: %w", m.spec.Name, err)
	}
	return nil
}

// Close switches the machine off, frozen or not, and takes its taps away. All but the first call only return what that returned.
func (m *Machine) Close() error {
	m.closing.Do(func() { m.closeErr = m.close() })
	return m.closeErr
}

func (m *Machine) close() error {
	_ = m.Thaw() // ended already: fine
	if m.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, _ = m.do(ctx, job{Off: true}) // it is killed if it does not
		cancel()
	}
	select {
	case <-m.exit:
	case <-time.After(5 * time.Second):
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // timeout(1) passes it on; ended already: fine
		<-m.exit
	}
	if m.conn != nil {
		_ = m.conn.Close() // the other end is gone
	}
	return m.removeTaps()
}
