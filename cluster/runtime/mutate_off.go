//go:build !mutation

package runtime

// mutated reports whether a rule of the protocol is switched off. Outside mutation builds none ever is.
func mutated(string) bool { return false }
