//go:build mutation

package cluster

var mutation string

// Mutate switches one rule of the protocol off, by its name in docs/protocol.md, so that the suite can show that it notices.
func Mutate(name string) { mutation = name }

func mutated(name string) bool { return mutation == name }
