//go:build mutation

package membership

// Mutation names the rule that is switched off; see PROTOCOL part C for the names.
var Mutation string

func mutated(name string) bool { return name == Mutation }
