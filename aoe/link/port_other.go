//go:build !linux

package link

// Open opens the portable port: the fast one needs Linux.
func Open(cfg Config) (Port, error) { return OpenRaw(cfg) }
