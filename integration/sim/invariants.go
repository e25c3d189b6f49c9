package sim

// invariants reads I1..I12 from the state machines themselves.
type invariants struct {
	w *world
}

func (c *invariants) start() {}

func (c *invariants) afterStep(p *process) {}

func (c *invariants) processEnded(p *process) {}
