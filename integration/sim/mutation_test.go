//go:build mutation

package sim

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store"
)

var (
	mutationSeeds = flag.Int("mutation-seeds", 60, "seeds to try for each mutation")
	mutationStart = flag.Uint64("mutation-start", 1, "the first of them")
	mutationOnly  = flag.String("mutation", "", "only this mutation, or all")
)

// mutation is one rule switched off, and the seeds that are good at noticing.
type mutation struct {
	name   string
	set    func(name string)
	first  []uint64 // tried first
	rule   string
	tweak  profile
	always bool
}

func setRaid(name string)       { raid.Mutate(name) }
func setMembership(name string) { membership.Mutation = name }
func setCluster(name string)    { cluster.Mutate(name) }
func setStore(name string)      { store.Mutate(name) }

const mutationEnv = "CLADE_MUTATION"

func init() { setCluster(os.Getenv(mutationEnv)) }

// mutations are the rules that whole clusters can be tried without. Always tried are those that they notice within a few seeds; each
// of the others has a test in its own package that notices at once (docs/testing.md), and is tried here only by name: to see what
// chance finds.
var mutations = []mutation{
	{name: "ACK_EARLY", always: true, tweak: stressed, set: setRaid, rule: "a commit waits for a disk until Raft has marked it stale (A.4.4, C8)"},
	{name: "ADMIT_EARLY", always: true, tweak: stressed, set: setRaid, rule: "InSync only when the disk has acknowledged everything (A.4.5, C8)"},
	{name: "KEEP_UNREACHED", always: true, tweak: stressed, set: setRaid, rule: "in-sync after a takeover are the disks that answered (A.4, C1)"},
	{name: "S_ACKED", tweak: stressed, set: setRaid, rule: "a disk goes stale as of the commit point (A.4.4, C2)"},
	{name: "S_END", always: true, tweak: stressed, set: setRaid, rule: "who is left out of F is stale as of C0 (A.1, C2)"},
	{name: "C32", tweak: stressed, set: setRaid, rule: "liars are stale as of 0 (A.1, C32)"},
	{name: "RECON_NOHIST", tweak: stressed, set: setRaid, rule: "reports are filtered by the history (A.4, C10)"},
	{name: "STALE_NO_CAS", tweak: stressed, set: func(n string) { setRaid(n); setMembership(n) }, rule: "Stale compares epoch and version (A.1, C7)"},
	{name: "INSYNC_NO_CAS", tweak: stressed, set: func(n string) { setRaid(n); setMembership(n) }, rule: "InSync compares epoch and version (A.1, C7)"},
	{name: "JOIN_INFLIGHT", tweak: stressed, set: setRaid, rule: "Regions only when the batches formed without the disk have committed (A.4.5, C23)"},
	{name: "FILL_UNLOCKED", tweak: stressed, set: setRaid, rule: "a Fill is made under the region's lock (A.4.5, C13)"},
	{name: "READ_MIX", tweak: stressed, set: setRaid, rule: "a rebuild takes k blocks as of one seq (A.4.6, C14)"},
	{name: "READ_UNCOMMITTED", tweak: stressed, set: setRaid, rule: "reads see the committed view (A.4.6, C14)"},
	{name: "C19", tweak: controlled, set: setRaid, rule: "a reservation is answered when the pipeline is clean (A.4.8, C19)"},
	{name: "APPLY_EARLY", always: true, tweak: stressed, set: setStore, rule: "nothing is applied before it is committed (A.3, M3)"},
	{name: "SUPERSEDED_EARLY", tweak: stressed, set: setStore, rule: "a block is left out only for a later one that stays (A.3, M3)"},
	{name: "C25", always: true, tweak: stressed, set: setStore, rule: "only what the durable commit point covers is applied (A.3, C25)"},
	{name: "NO_FENCE", tweak: stressed, set: setStore, rule: "a disk refuses lower epochs (A.3, C10)"},
	{name: "FENCE_VOLATILE", always: true, tweak: stressed, set: setStore, rule: "the fence is durable before the report (A.3, C10)"},
	{name: "NO_TRUNC", always: true, tweak: stressed, set: setStore, rule: "Start drops what the history declares void (A.3, C10)"},
	{name: "TRUNC_BY_SEQ", tweak: stressed, set: setStore, rule: "records are cut by epoch and seq (A.3, C10)"},
	{name: "FILL_NO_BASE", always: true, tweak: stressed, set: setStore, rule: "the last Fill raises base and commit (A.3, C9)"},
	{name: "REPAIR_DROPS", tweak: stressed, set: setStore, rule: "a Fill kills images only of its own blocks (A.3, C21)"},
	{name: "C22", tweak: stressed, set: setStore, rule: "a disk hears one stream (A.3, C22)"},
	{name: "C15c", tweak: stressed, set: setStore, rule: "damage is no torn tail (A.3, C15)"},
	{name: "C26", tweak: stressed, set: setStore, rule: "a disk remembers that it lied (A.3, C26)"},
	{name: "C27", tweak: stressed, set: setStore, rule: "a live shard is never made anew silently (A.3, C27)"},
	{name: "READ_ANY_OWNER", tweak: leased, set: setCluster, rule: "no answer without a lease (A.2, C14)"},
	{name: "C3", always: true, tweak: leased, set: setMembership, rule: "a restart is another incarnation (A.1, C3)"},
	{name: "C31", tweak: stressed, set: setCluster, rule: "frames from before the takeover are nobody's (A.4.12, C31)"},
	{name: "C16b", tweak: stressed, set: setRaid, rule: "a Fill carries the region's seq (A.3, C16)"},
	{name: "C15a", tweak: stressed, set: setRaid, rule: "liars are left out (A.4, C15)"},
	{name: "FORGET_PROMISE", tweak: leased, set: setMembership, rule: "a voter is silent for Dmax after its start (A.2, C5)"},
	{name: "FORGET_REVOKE", tweak: leased, set: setMembership, rule: "a revocation is durable (A.2, C5)"},
	{name: "NOT_BINDING", tweak: leased, set: setMembership, rule: "a Yes to a revocation binds the voter (A.2, C5)"},
	{name: "NOT_JOINT", tweak: leased, set: setMembership, rule: "lease voters change through a joint phase (A.1, C6)"},
	{name: "KEEP_OLD_LEASE", tweak: leased, set: setMembership, rule: "the lease is computed anew when the voters change (A.2, C6)"},
	{name: "BOOT_NO_PROOF", tweak: leased, set: setMembership, rule: "a held term needs proof of death (A.1, C30)"},
	{name: "TAKEOVER_LIVE", tweak: leased, set: setMembership, rule: "no takeover from a living owner (A.1)"},
	{name: "WON_FOR_EVER", tweak: controlled, set: setMembership, rule: "who won is told so only while it is true (A.1, C20)"},
}

// TestMutations switches one rule off after the other: some seed must fail.
func TestMutations(t *testing.T) {
	fmt.Print("| mutation | rule switched off | first seed | noticed as |\n|---|---|---|---|\n")
	for _, m := range mutations {
		if !(m.name == *mutationOnly || *mutationOnly == "" && m.always || *mutationOnly == "all") {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			defer m.set("")
			seeds := m.first
			for s := range *mutationSeeds {
				seeds = append(seeds, *mutationStart+uint64(s))
			}
			for _, seed := range seeds {
				m.set(m.name)
				r := runSeed(t, seed, options{profile: m.tweak})
				if r.failure == "" {
					continue
				}
				m.set("")
				if with := runSeed(t, seed, options{profile: m.tweak}); with.failure != "" { // proves nothing about the rule
					t.Errorf("seed %d fails with all rules in force, too: %s", seed, with.failure)
					continue
				}
				how, _, _ := strings.Cut(r.failure, "\n")
				fmt.Printf("| %s | %s | %d | %s |\n", m.name, m.rule, seed, how[:min(len(how), 140)])
				return
			}
			fmt.Printf("| %s | %s | none of %d | |\n", m.name, m.rule, len(seeds))
			t.Errorf("no seed noticed that %s is off", m.name)
		})
	}
}

// TestMutationsOfScenarios runs a scenario once more with its rule switched off: it must fail.
func TestMutationsOfScenarios(t *testing.T) {
	for rule, test := range map[string]string{
		"L11": "TestTheAgeRuleStarvesNobodyWhenCommitsAreSlow_L11",
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
	c := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.count", "1", "-lines", "1")
	c.Env = append(os.Environ(), mutationEnv+"="+rule)
	return c.CombinedOutput()
}
