package raid

// Owner is the owner of one volume in one epoch (A.4).
type Owner struct{ fx Effects }

// NewOwner begins the life of the owner of (v, v.Epoch) in FENCING.
func NewOwner(cfg OwnerConfig, v *Volume, nowNs int64) *Owner { return &Owner{} }

func (o *Owner) SetVolume(nowNs int64, v *Volume)         {}
func (o *Owner) Connected(nowNs int64, d DiskID, up bool) {}
func (o *Owner) NodeDead(nowNs int64, disks DiskSet)      {}
func (o *Owner) NodeAlive(nowNs int64, disks DiskSet)     {}
func (o *Owner) Reply(nowNs int64, r *DiskReply)          {}
func (o *Owner) Write(nowNs int64, io *IO)                {}
func (o *Owner) Read(nowNs int64, io *IO)                 {}
func (o *Owner) Barrier(nowNs int64, token uint64)        {}
func (o *Owner) Admitting() bool                          { return false }
func (o *Owner) Release(nowNs int64)                      {}
func (o *Owner) DropQueued(nowNs int64)                   {}
func (o *Owner) Tick(nowNs int64)                         {}
func (o *Owner) NextTickNs() int64                        { return 0 }
func (o *Owner) Take() *Effects                           { return &o.fx }
func (o *Owner) Status() OwnerStatus                      { return OwnerStatus{} }
