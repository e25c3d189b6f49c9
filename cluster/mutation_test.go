//go:build mutation

package cluster

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const mutationEnv = "CLADE_MUTATION"

func init() { mutation = os.Getenv(mutationEnv) }

// TestMutations runs the scenarios once more, each with the rule switched off that it is there for: it must fail.
func TestMutations(t *testing.T) {
	for _, m := range []struct{ rule, scenario string }{
		{"READ_ANY_OWNER", "TestAStoppedOwnerAnswersNothingAfterItsLease"},
		{"C30_HEARSAY", "TestAProofOfDeathComesFromItsOwnGuardian"},
		{"C31", "TestAFrameFromBeforeTheTakeoverIsNotExecuted"},
		{"C31_LATE", "TestAWriteThatIsRolledForwardIsAnsweredByTheSuccessor"},
		{"L2", "TestALinkThatIsDownToTheLeaderIsGoneRound"},
	} {
		t.Run(m.rule, func(t *testing.T) {
			if out, err := without("", m.scenario); err != nil { // proves nothing about the rule
				t.Fatalf("%s fails with all rules in force, too:\n%s", m.scenario, out)
			}
			out, err := without(m.rule, m.scenario)
			if err == nil {
				t.Fatalf("%s does not notice:\n%s", m.scenario, out)
			}
			lines := strings.SplitN(string(out), "\n", 3)
			t.Log(strings.TrimSpace(lines[min(1, len(lines)-1)]))
		})
	}
}

// without runs a test in a process of its own, without a rule.
func without(rule, test string) ([]byte, error) {
	c := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.count", "1")
	c.Env = append(os.Environ(), mutationEnv+"="+rule)
	return c.CombinedOutput()
}
