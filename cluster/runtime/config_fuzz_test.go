package runtime

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzConfig reads any bytes as a config.toml: whatever is accepted says the same after it has been written and read again.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("node = 'n1'\nadvertise = '10.0.0.1:7770'\nsan = ['eth1', '02:00:00:00:00:01']\n[cache]\nvolume = '6MB'\n[timing]\nlease = '480ms'\n"))
	f.Add([]byte("node = \"n\"\n[log]\nlevel = 'debug'\nformat = 'json'\n[admin]\ntcp = ':1'\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, configFileName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(dir)
		if err != nil {
			return
		}
		wrong := c.Validate()
		if err := saveConfig(dir, c); err != nil {
			t.Fatalf("%+v is not written: %v", c, err)
		}
		again, err := LoadConfig(dir)
		if err != nil {
			t.Fatalf("%+v is not read again: %v", c, err)
		}
		if again = normal(again); !reflect.DeepEqual(normal(c), again) {
			t.Fatalf("%+v became %+v", c, again)
		}
		if (wrong == nil) != (again.Validate() == nil) {
			t.Fatalf("%v became %v", wrong, again.Validate())
		}
	})
}

// normal makes empty lists nil.
func normal(c Config) Config {
	if len(c.SAN) == 0 {
		c.SAN = nil
	}
	if len(c.Disks) == 0 {
		c.Disks = nil
	}
	return c
}
