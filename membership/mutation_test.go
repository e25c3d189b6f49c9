//go:build mutation

package membership

import (
	"testing"

	"clade/raid"
)

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

func TestDedupeMutationIsCaught(t *testing.T) {
	Mutation = "WON_FOR_EVER"
	defer func() { Mutation = "" }()
	m := served(t)
	m.control(setReq(1, macX, 7, "X"))
	m.control(setReq(2, macY, 1, ""))
	m.control(setReq(1, macY, 2, "Y"))
	if got := m.control(setReq(1, macX, 7, "X")); got != "won" {
		t.Errorf("%s: the mutation changes nothing", got)
	}
}
