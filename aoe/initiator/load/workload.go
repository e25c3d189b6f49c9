package load

// WorkloadConfig shapes the operations of one client. Zero = default.
type WorkloadConfig struct {
	BaseLBA     uint64
	Sectors     uint64 // the range that is used; default 4096
	MaxSectors  int    // per operation; default 64
	AlignTo     int    // sectors; lengths and addresses are multiples; default 1
	ReadPercent int    // default 50; -1 for none
	HotPercent  int    // operations that go to the first HotSectors; default 50; -1 for none
	HotSectors  uint64 // default 64
}

// Workload makes the operations of one client. It is deterministic: the same
// seed gives the same operations. One goroutine at a time may use it.
type Workload struct {
	cfg    WorkloadConfig
	client int
	state  uint64
	seq    uint64
}

// Operation is what to do next.
type Operation struct {
	Write   bool
	LBA     uint64
	Sectors int
	Value   Value // of a write; Fill makes its data
}

// NewWorkload returns the workload of a client.
func NewWorkload(cfg WorkloadConfig, client int, seed uint64) *Workload {
	if cfg.Sectors == 0 {
		cfg.Sectors = 4096
	}
	if cfg.MaxSectors <= 0 {
		cfg.MaxSectors = 64
	}
	if cfg.AlignTo <= 0 {
		cfg.AlignTo = 1
	}
	if cfg.ReadPercent == 0 {
		cfg.ReadPercent = 50
	}
	if cfg.HotPercent == 0 {
		cfg.HotPercent = 50
	}
	if cfg.HotSectors == 0 {
		cfg.HotSectors = 64
	}
	cfg.HotSectors = min(cfg.HotSectors, cfg.Sectors)
	return &Workload{cfg: cfg, client: client, state: mix(seed ^ uint64(client)<<32)}
}

func (w *Workload) below(n uint64) uint64 {
	w.state += 0x9e3779b97f4a7c15
	return mix(w.state) % max(n, 1)
}

// Next returns the next operation. Each write has a value of its own.
func (w *Workload) Next() Operation {
	c := &w.cfg
	align := uint64(c.AlignTo)
	units := c.Sectors / align
	if int(w.below(100)) < c.HotPercent {
		units = max(1, c.HotSectors/align)
	}
	n := 1 + w.below(min(max(1, uint64(c.MaxSectors)/align), units))
	op := Operation{LBA: c.BaseLBA + w.below(units-n+1)*align, Sectors: int(n * align)}
	if int(w.below(100)) >= c.ReadPercent {
		w.seq++
		op.Write, op.Value = true, MakeValue(w.client, w.seq)
	}
	return op
}
