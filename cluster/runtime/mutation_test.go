//go:build mutation

package runtime

import (
	"os"
	"os/exec"
	"testing"
)

const mutationEnv = "CLADE_MUTATION"

func init() { mutation = os.Getenv(mutationEnv) }

// TestMutations runs the test of a rule once more with the rule switched off: it must fail.
func TestMutations(t *testing.T) {
	for rule, test := range map[string]string{
		"C30": "TestStateFileProvesOnlyItsOwnTermFileAndKernel",
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

// without runs a test in a process of its own, without a rule.
func without(rule, test string) ([]byte, error) {
	c := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.count", "1")
	c.Env = append(os.Environ(), mutationEnv+"="+rule)
	return c.CombinedOutput()
}
