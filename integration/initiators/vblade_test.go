package initiators

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// differences are the verdicts of vblade 25 that are not PASS, and why. docs/initiators.md tells them to people.
var differences = map[string]struct{ verdict, why string }{
	"header/minimum":                {"FAIL", "answers are not padded to 60 bytes; on a real network the card does it"},
	"header/other-mac":              {"DIFFERS", "the Ethernet destination is not looked at"},
	"header/unknown-command-effect": {"DIFFERS", "unknown commands are answered with error 1 also to all volumes and in the vendors' range"},
	"header/nmap":                   {"DIFFERS", "a Query Config of the header alone is dropped"},
	"identify/declares-flush":       {"DIFFERS", "FLUSH CACHE EXT is not there"},
	"read/none":                     {"DIFFERS", "a count of 0 succeeds and does nothing"},
	"read/write-flag":               {"DIFFERS", "a read with the W flag is answered without data"},
	"read/wildcard":                 {"DIFFERS", "reads of all volumes are executed"},
	"ata/verify":                    {"DIFFERS", "READ VERIFY is not there"},
	"ata/flush":                     {"DIFFERS", "FLUSH CACHE ends with status 0 instead of DRDY"},
	"ata/flush-ext":                 {"DIFFERS", "FLUSH CACHE EXT is not there"},
	"ata/smart":                     {"DIFFERS", "SMART is not there, nor declared"},
	"write/none":                    {"DIFFERS", "a count of 0 succeeds and does nothing"},
	"write/wildcard":                {"DIFFERS", "writes to all volumes are executed"},
	"config/longer-than-frame":      {"FAIL", "up to 32 bytes of an older frame are stored: the length is compared with that of the whole frame"},
	"config/set-wildcard":           {"DIFFERS", "the string of all volumes is set"},
	"mask/edit":                     {"FAIL", "a MAC that is deleted stays, and the process dies: a buffer overflow"},
	"mask/order":                    {"FAIL", "a MAC that is deleted stays, and the process dies: a buffer overflow"},
	"mask/all-or-nothing":           {"DIFFERS", "the directives before the one that failed stay in force"},
	"mask/capacity":                 {"DIFFERS", "the list holds 32 MACs"},
	"mask/truncated":                {"FAIL", "the directives that are in the frame are executed before the frame is found too short"},
	"mask/edit-wildcard":            {"DIFFERS", "the mask of all volumes is edited"},
	"reserve/set-wildcard":          {"DIFFERS", "all volumes are reserved"},
}

// TestVblade runs the suite on Debian's vblade: it tells the checks apart from what only Clade does, and the differences from
// those that an operator who moves to Clade will see.
func TestVblade(t *testing.T) {
	t.Parallel()
	needs(t, map[string]string{"vblade": "vblade", "ip": "iproute2"})
	verdicts := map[string]result{}
	groups := []string{"header/", "config/", "identify/", "read/", "ata/", "write/", "reserve/"}
	for _, name := range checkNames(t) {
		if strings.HasPrefix(name, "mask/") { // deleting from a mask kills vblade: each gets one of its own
			groups = append(groups, name)
		}
	}
	var mu sync.Mutex
	t.Run("suite", func(t *testing.T) {
		for _, group := range groups {
			t.Run(group, func(t *testing.T) {
				t.Parallel()
				results := onVblade(t, group)
				mu.Lock()
				defer mu.Unlock()
				for _, r := range results {
					verdicts[r.Name] = r
				}
			})
		}
	})
	for _, name := range checkNames(t) {
		got, made := verdicts[name]
		want, differs := differences[name]
		switch {
		case !made:
			t.Errorf("%s was not made", name)
		case !differs && got.Verdict != "PASS":
			t.Errorf("%s: %s: %s", name, got.Verdict, got.Found)
		case differs && got.Verdict != want.verdict:
			t.Errorf("%s: %s: %s; want %s, since %s", name, got.Verdict, got.Found, want.verdict, want.why)
		}
	}
}

// onVblade runs a part of the suite on a vblade of its own.
func onVblade(t *testing.T, group string) []result {
	w := newWire(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", w.target, "vblade", "7", "1", "san", image)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it may have died of the checks
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("vblade, %s: %s", group, said.String())
		}
	}()
	results, err := conformance(t, w.initiator, "san", "e7.1", "--only", group, "--timeout", "2s", "--silence", "50ms")
	if err != nil && !strings.HasPrefix(group, "mask/") && !strings.Contains(err.Error(), "e7.1 fails") {
		t.Errorf("%s: %v", group, err)
	}
	return results
}

// TestDifferencesAreDocumented keeps the table of docs/initiators.md and this one alike.
func TestDifferencesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "initiators.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range differences {
		if !strings.Contains(string(text), "| `"+name+"` | "+d.verdict+" | "+d.why+" |") {
			t.Errorf("docs/initiators.md lacks the line\n| `%s` | %s | %s |", name, d.verdict, d.why)
		}
	}
}
