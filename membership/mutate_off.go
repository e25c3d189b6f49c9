//go:build !mutation

package membership

// mutated is constant false in every binary but the mutation tests', where it switches one rule off to show that the suite
// notices (PROTOCOL C).
func mutated(string) bool { return false }
