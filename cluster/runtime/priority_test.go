package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// priorityEnv makes the test binary a process of a session of its own: "guard" is a guardian whose worker is "report", which prints its
// priorities; "nobody" is a guardian without any privilege, with a worker that only speaks.
const priorityEnv = "CLADE_TEST_PRIORITY"

func fakePriority(how string) int {
	self, err := os.Executable()
	if err != nil {
		return 3
	}
	command := []string{self}
	switch how {
	case "nobody":
		if err := syscall.Setuid(65534); err != nil {
			return 3
		}
		command = []string{"/bin/echo", "it runs"} // nobody may not run this binary
		fallthrough
	case "guard":
		_ = os.Setenv(priorityEnv, "report") // cannot fail with such a name
		code, err := Guard(GuardianOptions{Dir: os.TempDir(), Command: command, First: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			return 3
		}
		return code
	}
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 3
	}
	group, err := os.ReadFile("/proc/self/autogroup")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 3
	}
	fmt.Printf("process %d %s\n", 20-inverse, strings.TrimSpace(string(group)))
	return 0
}

// guarded starts a guardian and returns what its worker prints, and the guardian's log.
func guarded(t *testing.T, how string) (worker, log string) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("priorities need root")
		}
		t.Skip("priorities need root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), priorityEnv+"="+how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the guardian: %v\n%s", err, errs.String())
	}
	return out.String(), errs.String()
}

func TestWorkerGoesFirst(t *testing.T) {
	worker, log := guarded(t, "guard")
	if !strings.HasPrefix(worker, fmt.Sprintf("process %d ", highNice)) || strings.Contains(log, "precedence") {
		t.Fatalf("the worker says %q, the guardian\n%s", worker, log)
	}
	if strings.Contains(worker, "autogroup") && !strings.HasSuffix(worker, fmt.Sprintf("nice %d\n", highNice)) {
		t.Fatalf("its session is not first: %q", worker)
	}
}

func TestWorkerRunsWithoutPermissionToGoFirst(t *testing.T) {
	worker, log := guarded(t, "nobody")
	if worker != "it runs\n" || !strings.Contains(log, "no precedence") || !strings.Contains(log, "CAP_SYS_NICE") {
		t.Fatalf("the worker says %q, and nobody is told what is missing:\n%s", worker, log)
	}
}
