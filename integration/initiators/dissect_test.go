package initiators

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDissectors captures what a lab's volume says during the suite and lets Wireshark's and tcpdump's dissectors read it: other
// people's reading of AoE. Wireshark knows ATA and Query Config only; tcpdump all four commands, but it calls a Reserve/Release with
// padding invalid, which every target of Ethernet's minimum sends.
func TestDissectors(t *testing.T) {
	t.Parallel()
	needs(t, map[string]string{"tshark": "tshark", "tcpdump": "tcpdump", "ip": "iproute2"})
	l := newLab(t, 1500)
	pcap := filepath.Join(t.TempDir(), "san.pcap")
	stop := capture(t, l.InitiatorNamespace(), pcap)
	if _, err := conformance(t, l.InitiatorNamespace(), nic, "e7.1", "--silence", "10ms"); err != nil {
		t.Error(err)
	}
	stop()
	answers := lines(output(t, "tshark", "-r", pcap, "-Y", "aoe.response == 1", "-T", "fields", "-e", "aoe.cmd"))
	seen := map[string]int{}
	for _, line := range answers {
		seen[line]++
	}
	for _, command := range []string{"0", "1", "2", "3"} {
		if seen[command] < 20 {
			t.Errorf("%d answers to command %s were captured (%v)", seen[command], command, seen)
		}
	}
	if bad := output(t, "tshark", "-r", pcap, "-Y", "aoe.response == 1 && (_ws.malformed || _ws.expert)"); bad != "" {
		t.Errorf("Wireshark complains:\n%s", bad)
	}
	// One packet is one line at its margin and indented ones below. Refusals are left out: they carry the request as it came.
	packet, read := "", 0
	for _, line := range append(lines(output(t, "tcpdump", "-e", "-vv", "-r", pcap)), "") {
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, " ") {
			packet += "\n" + line
			continue
		}
		if strings.Contains(packet, "[Response]") {
			read++
		}
		if strings.Contains(packet, "[Response]") && !strings.Contains(packet, "Reserve/Release") && (strings.Contains(packet, "(invalid)") || strings.Contains(packet, "[|aoe")) {
			t.Errorf("tcpdump complains: %s", packet)
		}
		packet = line
	}
	if read < len(answers)/2 {
		t.Errorf("tcpdump read %d answers of %d", read, len(answers))
	}
}

func lines(out string) []string { return strings.Split(strings.TrimRight(out, "\n"), "\n") }

// capture writes AoE frames to a file until stop.
func capture(t testing.TB, netns, file string) (stop func()) {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", netns, "tcpdump", "-i", nic, "--immediate-mode", "-U", "-Z", "root", "-w", file, "ether", "proto", "0x88a2")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	r := bufio.NewReader(said)
	line := ""
	for !strings.Contains(line, "listening on") {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("tcpdump: %v", err)
		}
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		rest, _ := io.ReadAll(r) // its counts, at its end
		if err := cmd.Wait(); err != nil {
			t.Error(fmt.Errorf("tcpdump: %w: %s", err, rest))
		}
		end.Stop()
	}
}
