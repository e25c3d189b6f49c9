package initiators

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tries is how often a tool is asked: none of them sends a frame twice, and a busy machine may drop one that has waited too long.
const tries = 4

// tool runs one of aoetools where the lab's initiators are. It returns what was printed and the exit code. One that waits for a lost
// frame would do so for ever: timeout(1) ends it with 124.
func tool(t testing.TB, netns string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", netns, "timeout", "10"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	}
	t.Fatalf("%v: %v", args, err)
	return "", 0
}

// TestAoetools runs those of Debian's aoetools that speak on the wire themselves: aoeping, aoecfg and aoe-sancheck. The others ask
// the kernel's driver, which lives in the initial network namespace only; they are run in the guests' tests.
func TestAoetools(t *testing.T) {
	t.Parallel()
	needs(t, map[string]string{"aoeping": "aoetools", "aoecfg": "aoetools", "aoe-sancheck": "aoetools", "ip": "iproute2"})
	for _, c := range []struct {
		mtu     int
		payload string
	}{{1500, "1024"}, {9000, "8192"}} {
		l := newLab(t, c.mtu)
		for _, step := range []struct {
			args string
			code int
			want string // part of the output; all of it if it begins with =
		}{
			{"aoeping 7 1 san0", 0, "="},
			{"aoeping -v 7 1 san0", 0, "found e7.1 with mac "},
			{"aoeping -s 1 7 2 san0", -1, "="}, // ended by its SIGALRM: nobody answers for e7.2
			{"aoeping -i 7 1 san0", 0, "device identify response:"},
			{"aoeping -I 7 1 san0", 0, "model: Clade"},
			{"aoeping -S enable 7 1 san0", 0, "Status: 0x40"},
			{"aoeping -S return_status 7 1 san0", 0, "LBA Mid: 0x4f"},
			{"aoeping -S read_data 7 1 san0", 0, "SMART data:\n10 00 00"},
			{"aoecfg 7 1 san0", 0, "=\n"},
			{"aoecfg -c set -s first 7 1 san0", 0, "=first\n"},
			{"aoecfg -c set -s first 7 1 san0", 0, "=first\n"},
			{"aoecfg -c set -s second 7 1 san0", 0, "=*badcfg*\n"}, // error 4
			{"aoecfg -c test -s first 7 1 san0", 0, "=first\n"},
			{"aoecfg -t 1 -c test -s firs 7 1 san0", 0, "="},
			{"aoecfg -t 1 -c prefix -s firs san0", 0, "=7.1\tfirst\n"}, // asks everybody
			{"aoecfg -t 1 -c prefix -s second san0", 0, "="},
			{"aoecfg -t 1 -c fset -s everybody san0", 0, "="}, // to all volumes: refused by silence
			{"aoecfg -c fset -s third 7 1 san0", 0, "=third\n"},
			{"aoecfg -t 1 san0", 0, "=7.1\tthird\n"},
			{"aoe-sancheck", 0, "e7.1\t   1\t" + c.payload + "\tsan0"},
		} {
			whole, exact := strings.CutPrefix(step.want, "=")
			out, code, as := "", 0, false
			for try := 0; try < tries && !as; try++ {
				out, code = tool(t, l.InitiatorNamespace(), strings.Fields(step.args)...)
				as = code == step.code && (exact && out == whole || !exact && strings.Contains(squeezed(out), squeezed(step.want)))
			}
			if !as {
				t.Errorf("MTU %d: %s: exit code %d, want %d; output %q, want %q", c.mtu, step.args, code, step.code, out, step.want)
			}
			if strings.Contains(out, "rror") || strings.Contains(out, "Warning") || strings.Contains(out, "does not support") {
				t.Errorf("MTU %d: %s complains: %s", c.mtu, step.args, out)
			}
		}
	}
}

// squeezed makes runs of blanks one: the tools align with them.
func squeezed(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}
