//go:build mutation

package runtime

var mutation string

func mutated(name string) bool { return mutation == name }
