package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func goodConfig() Config {
	return Config{Node: "n1", Listen: "10.0.0.1:7770"}.withDefaults()
}

func TestConfigSurvivesTheFile(t *testing.T) {
	dir := t.TempDir()
	want := goodConfig()
	want.SAN, want.Disks = []string{"eth1", "10.7.0.0/16"}, []string{"/dev/sdb"}
	want.Cache.Volume, want.Timing.Lease = 96<<20, Duration(700*time.Millisecond)
	if err := saveConfig(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, configFileName))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), "96MiB") || !strings.Contains(string(raw), "700ms") {
		t.Fatalf("the file is not for people:\n%s", raw)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no name", func(c *Config) { c.Node = "" }, "node: is empty"},
		{"no port", func(c *Config) { c.Listen = "10.0.0.1" }, "listen:"},
		{"port", func(c *Config) { c.Listen = "10.0.0.1:99999" }, "below 65536"},
		{"everywhere", func(c *Config) { c.Advertise = "0.0.0.0:7770" }, "advertise:"},
		{"path twice", func(c *Config) { c.SAN = []string{"eth1", "eth1"} }, "listed twice"},
		{"priority", func(c *Config) { c.Priority = "realtime" }, "priority: \"realtime\""},
		{"level", func(c *Config) { c.Log.Level = "loud" }, "log.level"},
		{"format", func(c *Config) { c.Log.Format = "xml" }, "log.format"},
		{"lease too short", func(c *Config) { c.Timing.Lease = Duration(time.Millisecond) }, "timing.lease"},
		{"lease too long", func(c *Config) { c.Timing.Lease = Duration(time.Minute) }, "timing.lease"},
		{"heartbeat", func(c *Config) { c.Timing.Heartbeat = c.Timing.Lease }, "timing.heartbeat"},
		{"election", func(c *Config) { c.Timing.Election = c.Timing.RaftHeartbeat }, "election"},
		{"cache of a volume", func(c *Config) { c.Cache.Volume = 1 }, "cache.volume"},
		{"cache", func(c *Config) { c.Cache.Total = 1 }, "cache.total"},
	} {
		c := goodConfig()
		test.edit(&c)
		err := c.Validate()
		var wrong *ConfigError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
}

func TestConfigFileErrorsNameThePlace(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"node = \"n1\"\ncolour = \"red\"\n", "colour"},
		{"node = \"n1\"\nlisten = \n", "line 2"},
		{"[cache]\nvolume = \"much\"\n", "size"},
		{"[timing]\nlease = \"soon\"\n", "duration"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFileName), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v; want %q", test.text, err, test.want)
		}
	}
	if _, err := LoadConfig(t.TempDir()); err == nil || !strings.Contains(err.Error(), "clade init") {
		t.Errorf("no file: %v; want the next step", err)
	}
}

func TestSectorsFollowTheSmallestMTU(t *testing.T) {
	for _, test := range []struct {
		mtus []int
		want uint8
	}{{nil, 2}, {[]int{1500}, 2}, {[]int{9000}, SectorsMTU9000}, {[]int{9000, 1500}, 2}, {[]int{65536}, SectorsMTU9000}, {[]int{600}, 1}} {
		if got := sectorsFor(test.mtus); got != test.want {
			t.Errorf("MTUs %v: %d sectors, want %d", test.mtus, got, test.want)
		}
		if err := checkMTUs(test.mtus, nil, test.want); err != nil {
			t.Errorf("MTUs %v: %v", test.mtus, err)
		}
		if len(test.mtus) > 0 && test.mtus[0] < 9000 {
			if err := checkMTUs(test.mtus, nil, SectorsMTU9000); err == nil {
				t.Errorf("MTUs %v carry %d sectors", test.mtus, SectorsMTU9000)
			}
		}
	}
}

func TestCacheFitsTheMachine(t *testing.T) {
	for memory, want := range map[uint64]ByteSize{0: 64 << 20, 1 << 30: 64 << 20, 24<<30 + 12345: 768 << 20, 1 << 40: 4 << 30} {
		if got := defaultCache(memory); got != want {
			t.Errorf("of %d bytes: %s, want %s", memory, got, want)
		}
	}
	if memoryBytes() < 64<<20 {
		t.Errorf("this machine is said to have %d bytes", memoryBytes())
	}
}
