// Package tidy holds the house rules as tests: who may import whom, what a pure package may not touch, how large files and
// functions may be, and what must not be left lying about. It needs nothing but the go command.
package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "clade"

// imports says which packages of ours a package may import, besides those in the list of anyone it names. A package that is
// not here fails the test: put it here on purpose, and see that no arrow points back up.
var imports = map[string][]string{
	"raid":                        {},
	"raid/raidtest":               {"raid"},
	"aoe":                         {},
	"aoe/link":                    {"aoe"},
	"aoe/link/linktest":           {"aoe", "aoe/link"},
	"aoe/initiator":               {"aoe", "aoe/link"},
	"aoe/initiator/initiatortest": {"aoe", "aoe/link", "aoe/initiator"},
	"aoe/initiator/load":          {"aoe", "aoe/link", "aoe/initiator"},
	"aoe/initiator/bench":         {"aoe", "aoe/link", "aoe/initiator"},
	"aoe/initiator/conformance":   {"aoe", "aoe/link", "aoe/initiator"},
	"store":                       {"raid"},
	"store/disktest":              {"raid", "store"},
	"store/raftlog":               {},
	"membership":                  {"raid", "aoe"},
	"cluster":                     {"aoe", "raid", "membership"},
	"cluster/runtime":             {"aoe", "aoe/link", "raid", "store", "store/raftlog", "membership", "cluster"},
	"integration/sim":             {"aoe", "aoe/link", "aoe/initiator", "aoe/initiator/load", "raid", "store", "store/disktest", "store/raftlog", "membership", "cluster"},
	"integration/lab":             {"aoe", "aoe/link", "aoe/initiator", "aoe/initiator/load", "raid", "membership", "cluster", "cluster/runtime"},
	"integration/torture":         {"aoe", "aoe/initiator", "aoe/initiator/load", "integration/lab"},
	"integration/bench":           {"aoe/initiator/bench", "integration/lab"},
	"integration/compose":         {},
	"integration/guest":           {},
	"integration/guest/agent":     {},
	"integration/initiators":      {},
	"integration/tidy":            {},
	"cmd/clade":                   {"aoe", "aoe/link", "aoe/initiator", "aoe/initiator/bench", "aoe/initiator/conformance", "aoe/initiator/load", "raid", "store", "membership", "cluster", "cluster/runtime", "integration/lab", "integration/torture"},
}

// pure packages do no I/O: time, randomness and bytes enter as inputs, effects leave as values.
var pure = []string{"raid", "aoe", "membership", "cluster"}

var impure = []string{"os", "net", "syscall", "time", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "sync", "sync/atomic",
	"golang.org/x/sys/unix", "context"}

const (
	fileLinesMax     = 700 // 600 is the aim
	functionLinesMax = 85  // 70 is the aim
)

type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportGraph(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := imports[name]
		if !known {
			t.Errorf("package %s is not in the import graph of this test", name)
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: it may import only %v", name, ours, allowed)
			}
			if slices.Contains(pure, name) && slices.Contains(impure, imp) {
				t.Errorf("%s is pure and imports %s", name, imp)
			}
		}
	}
}

// TestGraphHasNoWayBackUp proves that the allowed arrows themselves form no circle.
func TestGraphHasNoWayBackUp(t *testing.T) {
	state := map[string]int{}
	var visit func(string, []string)
	visit = func(p string, path []string) {
		switch state[p] {
		case 1:
			t.Errorf("circle: %v -> %s", path, p)
			return
		case 2:
			return
		}
		state[p] = 1
		for _, q := range imports[p] {
			visit(q, append(path, p))
		}
		state[p] = 2
	}
	for p := range imports {
		visit(p, nil)
	}
}

func TestPackagesExplainThemselves(t *testing.T) {
	for _, p := range packages(t) {
		n := 0
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				n++
			}
		}
		if n != 1 && len(p.GoFiles) > 0 {
			t.Errorf("package %s has %d package comments: it needs exactly one", p.ImportPath, n)
		}
	}
}

func TestPureCodeStartsNothing(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, strings.TrimPrefix(p.ImportPath, module+"/")) {
			continue
		}
		eachFile(t, p, func(fset *token.FileSet, file *ast.File, _ []byte) {
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
					t.Errorf("%s: a pure package has no goroutine and no channel", fset.Position(n.Pos()))
				}
				return true
			})
		})
	}
}

func TestSizes(t *testing.T) {
	for _, p := range packages(t) {
		eachFile(t, p, func(fset *token.FileSet, file *ast.File, src []byte) {
			if n := bytes.Count(src, []byte("\n")); n > fileLinesMax {
				t.Errorf("%s has %d lines: is it still one idea?", fset.Position(file.Pos()).Filename, n)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; n > functionLinesMax {
					t.Errorf("%s: %s has %d lines", fset.Position(f.Pos()), f.Name.Name, n)
				}
			}
		})
	}
}

func eachFile(t *testing.T, p pkg, f func(*token.FileSet, *ast.File, []byte)) {
	t.Helper()
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		f(fset, file, src)
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", root, "ls-tree", "--name-only", "HEAD").Output()
	if err != nil {
		t.Skipf("no git checkout to look at: %v", err)
	}
	allowed := strings.Fields("cmd cluster raid store aoe membership integration docs go.mod go.sum Makefile README.md")
	for name := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) {
			t.Errorf("%s does not belong at the top", name)
		}
	}
}

func TestNoJunkDrawers(t *testing.T) {
	for _, p := range packages(t) {
		switch name := filepath.Base(p.ImportPath); name {
		case "util", "utils", "common", "types", "helpers", "helper", "misc":
			t.Errorf("package %s: put things where their rule lives", p.ImportPath)
		}
	}
}

func TestNothingLeftOpen(t *testing.T) {
	marks := []string{"TO" + "DO", "FIX" + "ME", "X" + "XX"}
	for _, p := range packages(t) {
		eachFile(t, p, func(fset *token.FileSet, file *ast.File, src []byte) {
			for i, line := range strings.Split(string(src), "\n") {
				for _, m := range marks {
					if strings.Contains(line, m) {
						t.Errorf("%s:%d: %s", fset.Position(file.Pos()).Filename, i+1, fmt.Sprintf("left open: %s", strings.TrimSpace(line)))
					}
				}
			}
		})
	}
}
