//go:build mutation

package membership

import (
	"os"
	"os/exec"
	"testing"

	"clade/raid"
)

const mutationEnv = "CLADE_MUTATION"

func init() { Mutation = os.Getenv(mutationEnv) }

// TestMutationsOfTables runs the test of a rule once more with the rule switched off: it must fail.
func TestMutationsOfTables(t *testing.T) {
	for rule, test := range map[string]string{
		"C3":           "TestABootOrphansWhatTheNodeOwned",
		"C20":          "TestSetIfEmptyHasOneWinner",
		"C20_QUOTA":    "TestANoisyHostFillsItsOwnQuotaOnly",
		"WON_FOR_EVER": "TestSetIfEmptyHasOneWinner",
	} {
		if out, err := without("", test); err != nil { // proves nothing about the rule
			t.Errorf("%s fails with all rules in force, too:\n%s", test, out)
			continue
		}
		out, err := without(rule, test)
		if err == nil {
			t.Errorf("%s: %s does not notice:\n%s", rule, test, out)
		}
		t.Logf("%s: %s", rule, out)
	}
}

// Each rule of the lease, switched off, must be noticed (PROTOCOL C).
func TestLeaseMutationsAreCaught(t *testing.T) {
	defer func() { Mutation = "" }()
	for _, name := range []string{"NOT_BINDING", "FORGET_PROMISE", "FORGET_REVOKE", "NOT_JOINT", "KEEP_OLD_LEASE"} {
		Mutation = name
		if _, err := runLeaseSims(1000); err == nil {
			t.Errorf("%s: nothing noticed", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// A guard that is switched off lets a command through that the tables say is void.
func TestGuardMutationsAreCaught(t *testing.T) {
	defer func() { Mutation = "" }()
	for name, cmd := range map[string]Body{
		"BOOT_NO_PROOF":  &NodeBoot{Node: 1, Term: 1, Info: testInfo(1)},
		"TAKEOVER_LIVE":  &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 1},
		"DELETE_LIVE":    &Delete{Vol: 1, Epoch: 1, Ver: 2},
		"STALE_NO_CAS":   volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 1, Disk: 2}),
		"INSYNC_NO_CAS":  volCmd(raid.VolumeCommand{Kind: raid.CmdInSync, Vol: 1, Epoch: 1, Ver: 3, Disk: 2}),
		"nothing at all": &Delete{Vol: 1, Epoch: 1, Ver: 2},
	} {
		m := served(t)
		if name == "INSYNC_NO_CAS" { // Stale, InSync in flight, Stale again: the late InSync must be void (C7)
			m.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 2, Disk: 2}))
			m.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 3, Disk: 2}))
		}
		Mutation = name
		if r := m.apply(1, cmd); r.OK() != (name != "nothing at all") {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
}

// without runs a test in a process of its own, without a rule.
func without(rule, test string) ([]byte, error) {
	c := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.count", "1")
	c.Env = append(os.Environ(), mutationEnv+"="+rule)
	return c.CombinedOutput()
}
