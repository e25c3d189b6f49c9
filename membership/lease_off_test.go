//go:build !mutation

package membership

import "testing"

func TestNoLeaseOutlivesItsRevocation(t *testing.T) {
	granted, err := runLeaseSims(400)
	if err != nil {
		t.Fatal(err)
	}
	if granted < 1000 {
		t.Errorf("the holder was valid in %d steps of all runs: the simulation tests nothing", granted)
	}
}
