package tidy

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryMutationIsAccountedFor: each rule that the protocol marks [M:NAME], and each that the code can switch off, has a line
// in the table of docs/testing.md.
func TestEveryMutationIsAccountedFor(t *testing.T) {
	protocol := read(t, "docs/protocol.md")
	table := read(t, "docs/testing.md")
	names := map[string]string{}
	protocol = strings.ReplaceAll(protocol, "[M:NAME]", "") // says what the mark means
	for _, m := range regexp.MustCompile(`\[M:([A-Z0-9_, ]+)\]`).FindAllStringSubmatch(protocol, -1) {
		for _, name := range strings.Split(m[1], ",") {
			names[strings.TrimSpace(name)] = "docs/protocol.md"
		}
	}
	hook := regexp.MustCompile(`mutated\("([A-Za-z0-9_]+)"\)`)
	for _, p := range packages(t) {
		eachFile(t, p, func(_ *token.FileSet, _ *ast.File, src []byte) {
			for _, m := range hook.FindAllSubmatch(src, -1) {
				names[string(m[1])] = p.ImportPath
			}
		})
	}
	if len(names) < 40 {
		t.Fatalf("only %d rules found", len(names))
	}
	for name, where := range names {
		if !strings.Contains(table, "\n| "+name+" |") {
			t.Errorf("%s (%s) has no line in docs/testing.md", name, where)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
