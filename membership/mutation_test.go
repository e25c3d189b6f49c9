//go:build mutation

package membership

import "testing"

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
