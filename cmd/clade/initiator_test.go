package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clade/aoe"
	"clade/aoe/initiator/initiatortest"
	"clade/aoe/link"
)

// initiatorBench is a volume e7.1 of 1 MiB and the initiator commands before it.
type initiatorBench struct {
	t      *testing.T
	sw     *link.Switch
	target *initiatortest.Target
	stdin  io.Reader
}

func newInitiatorBench(t *testing.T) *initiatorBench {
	sw := link.NewSwitch(link.SwitchConfig{MTU: 9000})
	port, err := sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	b := &initiatorBench{t: t, sw: sw, target: &initiatortest.Target{Port: port, MAC: aoe.MAC{2, 0xae, 0, 0, 0, 1}, Shelf: 7, Slot: 1,
		Sectors: 2048, BufferCount: 32, SectorCount: 16}}
	if err := b.target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.target.Stop() })
	return b
}

// run runs a command as a process would and returns its output and exit code.
func (b *initiatorBench) run(args ...string) (string, int, error) {
	b.t.Helper()
	o := &initiatorOptions{isTerminal: func(io.Writer) bool { return false }}
	o.openPort = func(name string) (link.Port, error) {
		if name != "san" {
			return nil, fmt.Errorf("no interface %s", name)
		}
		return b.sw.NewPort(link.SwitchPortConfig{Name: name, MAC: aoe.MAC{2, 1, 0, 0, 0, byte(rand.IntN(250))}})
	}
	cmd := newInitiatorCommandWith(o)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	if b.stdin != nil {
		cmd.SetIn(b.stdin)
	}
	cmd.SetArgs(args)
	err := cmd.Execute()
	code := 0
	if err != nil {
		code = exitFailed
		var e interface{ ExitCode() int }
		if errors.As(err, &e) {
			code = e.ExitCode()
		}
	}
	return out.String(), code, err
}

// want runs a command that has to end with a code.
func (b *initiatorBench) want(code int, args ...string) string {
	b.t.Helper()
	out, got, err := b.run(args...)
	if got != code {
		b.t.Fatalf("%s: exit code %d, want %d (%v)\n%s", strings.Join(args, " "), got, code, err, out)
	}
	return out
}

func TestInitiatorExitCodes(t *testing.T) {
	b := newInitiatorBench(t)
	for _, tc := range []struct {
		code int
		args string
	}{
		{0, "discover -i san --wait 50ms"},
		{0, "discover -i san --shelf 7 --slot 1"},
		{3, "discover -i san --shelf 9 --wait 50ms"},
		{0, "identify -i san e7.1"},
		{0, "identify -i san --shelf 7 --slot 1"},
		{3, "identify -i san e7.2 --timeout 50ms"},
		{2, "identify -i san"},
		{2, "identify e7.1"},
		{2, "identify -i san e7.1 --slot 1"},
		{2, "identify -i san 7.1"},
		{2, "identify -i san e7.255"},
		{2, "identify -i san e4095.1"},
		{2, "identify -i san e7.1 --nonsense"},
		{2, "identify -i san e7.1 --source-mac 12"},
		{1, "identify -i other e7.1"},
		{0, "config -i san e7.1 --set mine"},
		{0, "config -i san e7.1 --set mine"},
		{4, "config -i san e7.1 --set yours"},
		{0, "config -i san e7.1 --prefix mi"},
		{1, "config -i san e7.1 --test other"},
		{2, "config -i san e7.1 --set a --clear"},
		{4, "config -i san e7.1 --race 3"},
		{0, "config -i san e7.1 --race 3 --reset"},
		{0, "config -i san e7.1 --clear"},
		{0, "reserve -i san e7.1 --set --source-mac 02:00:00:00:00:07"},
		{4, "reserve -i san e7.1 --set"},
		{4, "read -i san e7.1 --length 512"},
		{0, "reserve -i san e7.1 --set --force --mac 02:00:00:00:00:08"},
		{4, "reserve -i san e7.1 --release"},
		{0, "reserve -i san e7.1 --release --force"},
		{2, "reserve -i san e7.1 --set --release"},
		{0, "mask -i san e7.1 --add 02:00:00:00:00:07 --add 02:00:00:00:00:09"},
		{3, "mask -i san e7.1 --timeout 50ms --source-mac 02:00:00:00:00:08"},
		{0, "mask -i san e7.1 --source-mac 02:00:00:00:00:07 --delete 02:00:00:00:00:07 --delete 02:00:00:00:00:09"},
		{2, "copy -i san e7.1 e7.2"},
		{1, "copy -i san /nonexistent e7.1"},
		{2, "read -i san e7.1 --offset 1MiB --length 512"},
		{2, "read -i san e7.1 --chunk 100"},
	} {
		b.want(tc.code, strings.Fields(tc.args)...)
	}
}

func TestInitiatorCopiesAndVerifies(t *testing.T) {
	b := newInitiatorBench(t)
	dir := t.TempDir()
	image, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
	data := make([]byte, 700_001) // not a whole number of sectors
	rand.NewChaCha8([32]byte{1}).Read(data)
	if err := os.WriteFile(image, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var r transferred
	out := b.want(0, "copy", "-i", "san", image, "e7.1", "--verify", "--json", "--chunk", "64KiB")
	if err := json.Unmarshal([]byte(out), &r); err != nil || !r.Verified || r.Bytes != int64(len(data)) || len(r.SHA256) != 64 || r.LongestStallMs <= 0 {
		t.Fatalf("%v: %s", err, out)
	}
	if !bytes.Equal(b.target.Disk()[:len(data)], data) {
		t.Fatal("the volume holds other data")
	}
	b.want(0, "copy", "-i", "san", "e7.1", back, "--verify")
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, b.target.Disk()) {
		t.Fatalf("the copy back differs: %d bytes, %v", len(got), err)
	}
	if out := b.want(0, "read", "-i", "san", "e7.1", "--offset", "1KiB", "--length", "1000"); out != string(data[1024:2024]) {
		t.Errorf("read gives %d other bytes", len(out))
	}
	b.stdin = bytes.NewReader(data[:5000])
	b.want(0, "write", "-i", "san", "e7.1", "--offset", "512KiB", "--chunk", "1KiB")
	if !bytes.Equal(b.target.Disk()[512<<10:][:5000], data[:5000]) {
		t.Error("write from a pipe wrote something else")
	}
	if err := os.WriteFile(image, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(2, "copy", "-i", "san", image, "e7.1")
	b.stdin = bytes.NewReader(make([]byte, 2<<20))
	b.want(1, "write", "-i", "san", "e7.1")
}

func TestInitiatorCopyFindsCorruption(t *testing.T) {
	b := newInitiatorBench(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := 0
	b.target.Stop()
	fresh := &initiatortest.Target{Port: b.target.Port, MAC: b.target.MAC, Shelf: 7, Slot: 1, Sectors: 2048, BufferCount: 32, SectorCount: 16}
	fresh.Fault = func(frame []byte, answer bool) int {
		if !answer && frame[19] == 0 && frame[27] == 0x24 {
			if seen++; seen == 1 {
				fresh.Corrupt(100)
			}
		}
		return 1
	}
	if err := fresh.Start(); err != nil {
		t.Fatal(err)
	}
	defer fresh.Stop()
	_, code, err := b.run("copy", "-i", "san", image, "e7.1", "--verify")
	if code != exitFailed || !strings.Contains(fmt.Sprint(err), "differ") {
		t.Fatalf("exit code %d: %v", code, err)
	}
}

func TestInitiatorRaceTellsEverybody(t *testing.T) {
	b := newInitiatorBench(t)
	var r raced
	if err := json.Unmarshal([]byte(b.want(0, "config", "-i", "san", "e7.1", "--race", "5", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	won := 0
	for _, c := range r.Contenders {
		if c.Outcome == "won" {
			won++
		}
		if c.Told != r.Final {
			t.Errorf("%s was told %q, in force is %q", c.MAC, c.Told, r.Final)
		}
	}
	if won != 1 || r.Winners != 1 || len(r.Contenders) != 5 || r.Winner == "" {
		t.Errorf("%+v", r)
	}
}
