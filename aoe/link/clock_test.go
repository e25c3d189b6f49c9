package link

import "testing"

// fakeClocks are two clocks under a test's control.
type fakeClocks struct{ bootNs, offsetNs, readNs int64 }

func (c *fakeClocks) clock() *Clock {
	return &Clock{
		realtime: func() int64 { return c.bootNs + c.offsetNs },
		Boottime: func() int64 { c.bootNs += c.readNs; return c.bootNs },
	}
}

func TestClockConverts(t *testing.T) {
	fake := &fakeClocks{bootNs: 5e9, offsetNs: 1700e18 / 1000}
	c := fake.clock()
	arrived := fake.bootNs
	frames := []RxFrame{{TimeNs: arrived + fake.offsetNs}, {TimeNs: arrived + 3 + fake.offsetNs}}
	fake.bootNs += 100
	nowNs, ok := c.Convert(frames)
	if !ok || nowNs != fake.bootNs || frames[0].TimeNs != arrived || frames[1].TimeNs != arrived+3 {
		t.Errorf("%v: now %d, frames at %d and %d; want %d, %d, %d",
			ok, nowNs, frames[0].TimeNs, frames[1].TimeNs, fake.bootNs, arrived, arrived+3)
	}
	// A time in the future is now at the latest.
	late := []RxFrame{{TimeNs: fake.bootNs + fake.offsetNs + 1000}}
	if nowNs, ok := c.Convert(late); !ok || late[0].TimeNs != nowNs {
		t.Errorf("%v: a frame at %d, now %d", ok, late[0].TimeNs, nowNs)
	}
}

// TestClockJump: after the wall clock was set, no frame that may have been
// queued before that is trusted, and those behind it are.
func TestClockJump(t *testing.T) {
	for _, jump := range []int64{-3600e9, -2e6, 2e6, 3600e9} {
		fake := &fakeClocks{bootNs: 5e9, offsetNs: 1e18}
		c := fake.clock()
		if _, ok := c.Convert(nil); !ok {
			t.Fatal("the first reading is no jump")
		}
		stale := RxFrame{TimeNs: fake.bootNs + fake.offsetNs}
		fake.bootNs += 2e9
		fake.offsetNs += jump
		if _, ok := c.Convert([]RxFrame{stale}); ok {
			t.Errorf("jump of %d: a frame from before it was trusted", jump)
		}
		if _, ok := c.Convert([]RxFrame{stale}); ok {
			t.Errorf("jump of %d: the rest of the queue was trusted", jump)
		}
		if _, ok := c.Convert(nil); ok {
			t.Errorf("jump of %d: trusted before the queue was empty", jump)
		}
		fresh := []RxFrame{{TimeNs: fake.bootNs + fake.offsetNs}}
		if nowNs, ok := c.Convert(fresh); !ok || fresh[0].TimeNs != nowNs {
			t.Errorf("jump of %d: fresh frame %v, at %d, now %d", jump, ok, fresh[0].TimeNs, nowNs)
		}
		if c.Jumps() != 1 {
			t.Errorf("%d jumps counted", c.Jumps())
		}
	}
}

// TestClockJumpSeenByEmptyBatch: that the queue was empty when the jump was
// noticed says nothing; a frame may have come between the two.
func TestClockJumpSeenByEmptyBatch(t *testing.T) {
	fake := &fakeClocks{bootNs: 5e9, offsetNs: 1e18}
	c := fake.clock()
	c.Convert(nil)
	between := RxFrame{TimeNs: fake.bootNs + fake.offsetNs}
	fake.offsetNs -= 60e9
	if _, ok := c.Convert(nil); ok {
		t.Error("jump not noticed")
	}
	if _, ok := c.Convert([]RxFrame{between}); ok {
		t.Error("a frame stamped before the jump was trusted")
	}
}

// TestClockSlowReading: a reading that was interrupted is no jump.
func TestClockSlowReading(t *testing.T) {
	fake := &fakeClocks{bootNs: 5e9, offsetNs: 1e18}
	c := fake.clock()
	c.Convert(nil)
	fake.readNs = 30e6
	if _, ok := c.Convert(nil); !ok || c.Jumps() != 0 {
		t.Errorf("slow reading: %v, %d jumps", ok, c.Jumps())
	}
}

func TestClockOfSystem(t *testing.T) {
	var c Clock
	before := BoottimeNs()
	frames := []RxFrame{{TimeNs: RealtimeNs()}}
	nowNs, ok := c.Convert(frames)
	if !ok || nowNs < before || frames[0].TimeNs > nowNs || frames[0].TimeNs < before-jumpNs {
		t.Errorf("%v: frame at %d, taken between %d and %d", ok, frames[0].TimeNs, before, nowNs)
	}
}
