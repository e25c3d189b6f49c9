package store

import "fmt"

// CapacityMiB returns how many MiB of shards a formatted device has room for.
func CapacityMiB(dev Device) (uint64, error) {
	all, err := readSupers(dev)
	if err != nil {
		return 0, fmt.Errorf("store: %w", err)
	}
	return all[0].regions, nil
}
