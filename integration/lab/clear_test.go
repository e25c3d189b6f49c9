package lab

import (
	"context"
	"time"

	"clade/aoe/initiator"
)

// clearRange fills the range that the load uses with zeros: a history starts there.
func clearRange(h *Host, l *Lab) error {
	c, err := h.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: l.Spec.Shelf, Slot: 1})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < 8<<20; off += int64(len(zeros)) {
		if err := c.WriteAt(ctx, zeros, off); err != nil {
			return err
		}
	}
	return c.Close()
}
