//go:build !unix

package bench

// ownNs returns 0: unknown.
func ownNs() int64 { return 0 }
