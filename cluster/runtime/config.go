package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"clade/membership"
	"clade/raid"
)

// Names of the files in a node's data directory.
const (
	configFileName   = "config.toml"
	identityFileName = "node.json"
	disksFileName    = "disks.json"
	raftFileName     = "raft.db"
	peersFileName    = "peers.json"
	socketFileName   = "admin.sock"
)

// Defaults of Config.
const (
	DefaultListen     = "0.0.0.0:7770"
	defaultDiskMiB    = 32
	maxSANInterfaces  = membership.MaxSANPaths
	minLease          = 100 * time.Millisecond
	drainBoundDefault = 10 * time.Second
)

// ByteSize is a number of bytes, written in TOML as "64MiB".
type ByteSize uint64

// UnmarshalText parses what people write: "64MiB", "1 GB", "4096".
func (b *ByteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("size %q: write a number with a unit, as in 64MiB", text)
	}
	*b = ByteSize(n)
	return nil
}

// MarshalText writes the size with a binary unit.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String returns the size, exactly, with the largest binary unit that divides it.
func (b ByteSize) String() string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	n, i := uint64(b), 0
	for n > 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return strconv.FormatUint(n, 10) + units[i]
}

// Duration is a time.Duration, written in TOML as "50ms".
type Duration time.Duration

// UnmarshalText parses time.ParseDuration's form.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write a number with a unit, as in 50ms or 2s", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes time.Duration's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Config is a node's config.toml. Zero fields get the documented defaults.
type Config struct {
	Node      string   `toml:"node" comment:"name of this node in the cluster"`
	Listen    string   `toml:"listen" comment:"cluster address (TCP) to listen on"`
	Advertise string   `toml:"advertise" comment:"cluster address that other nodes connect to; default: listen, if that names a host"`
	SAN       []string `toml:"san" comment:"SAN interfaces, one per path: a name, a MAC, or an IP prefix on it"`
	Disks     []string `toml:"disks" comment:"paths of disks besides those that 'clade disk add' knows"`
	Priority  string   `toml:"priority" comment:"high: this node goes before what else runs on the host, else it may lose its lease there; as-started: it does not"`

	Cache  CacheConfig  `toml:"cache"`
	Admin  AdminConfig  `toml:"admin"`
	Log    LogConfig    `toml:"log"`
	Timing TimingConfig `toml:"timing" comment:"change these only on all nodes alike"`
}

// CacheConfig bounds memory.
type CacheConfig struct {
	Total  ByteSize `toml:"total" comment:"stripe caches of all volumes that this node serves, together; default: 1/32 of the machine's memory, but 64MiB to 4GiB"`
	Volume ByteSize `toml:"volume,omitempty" comment:"the most of it that one volume gets; default: all"`
	Disk   ByteSize `toml:"disk" comment:"table cache of each disk"`
}

// AdminConfig says where the admin API listens.
type AdminConfig struct {
	Socket string `toml:"socket" comment:"unix socket; default: admin.sock in the data directory"`
	TCP    string `toml:"tcp" comment:"also on this address, without any authentication: metrics, status and commands; empty: not"`
}

// LogConfig says what is logged to standard error, and how.
type LogConfig struct {
	Level  string `toml:"level" comment:"debug, info, warn or error"`
	Format string `toml:"format" comment:"text or json"`
}

// TimingConfig holds the lease's and Raft's times.
type TimingConfig struct {
	Lease         Duration `toml:"lease" comment:"how long a voter's promise lasts: a dead host's volumes are served elsewhere after about this"`
	Heartbeat     Duration `toml:"heartbeat"`
	RaftTick      Duration `toml:"raft_tick"`
	RaftHeartbeat Duration `toml:"raft_heartbeat"`
	Election      Duration `toml:"election"`
	Drain         Duration `toml:"drain" comment:"bound of the planned handoff at SIGTERM"`
}

// withDefaults returns c with its zero fields filled in.
func (c Config) withDefaults() Config {
	setString := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	setDuration := func(p *Duration, v time.Duration) {
		if *p == 0 {
			*p = Duration(v)
		}
	}
	setString(&c.Listen, DefaultListen)
	setString(&c.Priority, PriorityHigh)
	setString(&c.Log.Level, "info")
	setString(&c.Log.Format, "text")
	if c.Advertise == "" {
		if host, port, err := net.SplitHostPort(c.Listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() && port != "0" {
			c.Advertise = c.Listen
		}
	}
	if c.Cache.Total == 0 {
		c.Cache.Total = defaultCache(memoryBytes())
	}
	if c.Cache.Disk == 0 {
		c.Cache.Disk = defaultDiskMiB << 20
	}
	setDuration(&c.Timing.Lease, membership.DefaultPromiseNs)
	setDuration(&c.Timing.Heartbeat, membership.DefaultHeartbeatNs)
	setDuration(&c.Timing.RaftTick, membership.DefaultTickNs)
	setDuration(&c.Timing.RaftHeartbeat, membership.DefaultTickNs*membership.DefaultHeartbeatTicks)
	setDuration(&c.Timing.Election, membership.DefaultTickNs*membership.DefaultElectionTicks)
	setDuration(&c.Timing.Drain, drainBoundDefault)
	return c
}

// defaultCache returns the stripe caches' default on a machine with so much memory, in whole MiB. The garbage collector may take as much
// again.
func defaultCache(memory uint64) ByteSize {
	return ByteSize(min(max(memory/32, 64<<20), 4<<30) >> 20 << 20)
}

// memoryBytes returns how much memory this process may have: the machine's, or its control group's if that is less.
func memoryBytes() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	n := info.Totalram * uint64(info.Unit)
	if raw, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil { // else there is no bound, or none that can be seen
		if most, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err == nil {
			n = min(n, most)
		}
	}
	return n
}

// ConfigError is everything that is wrong with a configuration.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return "the configuration is wrong:\n" + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// Validate says what is wrong with a configuration that has its defaults, and what to do about it, in a ConfigError.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Node == "" {
		bad("node", "is empty: give this node a name that no other node of the cluster has")
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen", "%q is no host:port: write for instance 10.0.0.1:7770", c.Listen)
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		bad("listen", "port %q: write a number below 65536", port)
	}
	if host, _, err := net.SplitHostPort(c.Advertise); err != nil || host == "" || net.ParseIP(host).IsUnspecified() {
		bad("advertise", "%q is no address that other nodes can connect to: write host:port with this node's address in the cluster network", c.Advertise)
	}
	if len(c.SAN) > maxSANInterfaces {
		bad("san", "%d interfaces: at most %d", len(c.SAN), maxSANInterfaces)
	}
	for i, s := range c.SAN {
		for _, o := range c.SAN[:i] {
			if s == o {
				bad("san", "%q is listed twice: one entry per path", s)
			}
		}
	}
	if c.Priority != PriorityHigh && c.Priority != PriorityAsStarted {
		bad("priority", "%q: choose %s or %s", c.Priority, PriorityHigh, PriorityAsStarted)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		bad("log.level", "%q: choose debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		bad("log.format", "%q: choose text or json", c.Log.Format)
	}
	c.validateTiming(bad)
	const least = 4 << 20
	if c.Cache.Total < least {
		bad("cache.total", "%s is too little: at least 4MiB", c.Cache.Total)
	}
	if c.Cache.Volume != 0 && c.Cache.Volume < least {
		bad("cache.volume", "%s is too little: at least 4MiB, or leave it out", c.Cache.Volume)
	}
	if len(errs) > 0 {
		return &ConfigError{errors.Join(errs...)}
	}
	return nil
}

func (c *Config) validateTiming(bad func(key, format string, args ...any)) {
	t := c.Timing
	if time.Duration(t.Lease) < minLease || int64(t.Lease) > membership.MaxPromiseNs {
		bad("timing.lease", "%s: choose between %s and %s", time.Duration(t.Lease), minLease, time.Duration(membership.MaxPromiseNs))
	}
	if t.Heartbeat <= 0 || t.Heartbeat*3 > t.Lease {
		bad("timing.heartbeat", "%s: at least three must fit in timing.lease (%s)", time.Duration(t.Heartbeat), time.Duration(t.Lease))
	}
	if t.RaftTick < Duration(time.Millisecond) || t.RaftHeartbeat < t.RaftTick || t.Election < 3*t.RaftHeartbeat {
		bad("timing", "raft_tick %s <= raft_heartbeat %s <= election %s / 3 does not hold", time.Duration(t.RaftTick),
			time.Duration(t.RaftHeartbeat), time.Duration(t.Election))
	}
	if t.Drain < 0 {
		bad("timing.drain", "%s: choose 0s to stop without a handoff, or a bound", time.Duration(t.Drain))
	}
}

// LoadConfig reads config.toml from a data directory and fills in defaults; it is not validated yet, since flags may still
// change it.
func LoadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, configFileName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%s does not exist: run 'clade init' or 'clade join' with --dir %s first", path, dir)
	}
	if err != nil {
		return Config{}, fmt.Errorf("runtime: configuration: %w", err)
	}
	var c Config
	dec := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return Config{}, fmt.Errorf("%s has keys that this version does not know; remove them:\n%s", path, strict.String())
		}
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			row, _ := decode.Position()
			return Config{}, fmt.Errorf("%s, line %d: %s", path, row, decode.Error())
		}
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c.withDefaults(), nil
}

// saveConfig writes config.toml of a new data directory.
func saveConfig(dir string, c Config) error {
	raw, err := toml.Marshal(c)
	if err != nil {
		return fmt.Errorf("runtime: configuration: %w", err)
	}
	return writeDurably(filepath.Join(dir, configFileName), raw)
}

// Identity says which node of which cluster a data directory belongs to. It never changes.
type Identity struct {
	Cluster     membership.UUID `json:"cluster"`
	ClusterName string          `json:"cluster_name"`
	Shelf       uint16          `json:"shelf"`
	SectorCount uint8           `json:"sector_count"`
	Node        raid.NodeID     `json:"node"`
	Name        string          `json:"name"`
	Key         membership.UUID `json:"key"`
	Witness     bool            `json:"witness"`
	Seeds       []Peer          `json:"seeds"` // members at the time of joining
}

// Peer is where a node can be reached.
type Peer struct {
	Node raid.NodeID `json:"node"`
	Addr string      `json:"addr"`
}

// loadIdentity reads a data directory's identity.
func loadIdentity(dir string) (Identity, error) {
	var id Identity
	err := loadJSON(filepath.Join(dir, identityFileName), &id)
	if errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("%s holds no node: run 'clade init' or 'clade join' with --dir %s first", dir, dir)
	}
	if err == nil && (id.Node == 0 || id.Cluster == membership.UUID{}) {
		err = fmt.Errorf("%s: no node or no cluster in it", filepath.Join(dir, identityFileName))
	}
	return id, err
}

func loadJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("runtime: %w", err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("runtime: %s: %w", path, err)
	}
	return nil
}

func saveJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("runtime: %s: %w", path, err)
	}
	return writeDurably(path, append(raw, '\n'))
}

// writeDurably replaces a file so that a crash leaves the old or the new one.
func writeDurably(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("runtime: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("runtime: write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
