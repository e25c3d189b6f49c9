//go:build !mutation

package raid

// mutated reports whether a rule of the protocol is switched off. Outside mutation builds none ever is.
func mutated(string) bool { return false }

// disorder does nothing outside mutation builds.
func disorder(*Owner) {}
