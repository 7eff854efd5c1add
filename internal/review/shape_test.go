package review

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// source is one Go file of the tree.
type source struct {
	path  string // from the module's root
	file  *ast.File
	lines int
	test  bool
}

func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var all []source
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		all = append(all, source{path: rel, file: f, lines: fset.File(f.Pos()).LineCount(), test: strings.HasSuffix(path, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, all
}

// exceptions are the lines of exceptions.txt: "check place reason".
func exceptions(t *testing.T, check string) map[string]bool {
	t.Helper()
	f, err := os.Open("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if fields[0] == check {
			out[fields[1]] = true
		}
	}
	return out
}

func TestEveryPackageSaysItsJob(t *testing.T) {
	for _, p := range list(t, "./cmd/...", "./internal/...", "./test/...") {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + filepath.Base(p.ImportPath) + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: its doc begins %q, not with %q and its one job", p.ImportPath, p.Doc, want)
		}
	}
}

func TestNoDrawerPackages(t *testing.T) {
	bad := map[string]bool{"util": true, "utils": true, "common": true, "helpers": true, "helper": true, "misc": true, "types": true}
	for _, p := range list(t, "./...") {
		if bad[filepath.Base(p.ImportPath)] {
			t.Errorf("%s: a name that says no job", p.ImportPath)
		}
	}
}

func TestFunctionsFitAScreen(t *testing.T) {
	fset, files := sources(t)
	excused := exceptions(t, "function")
	total, long := 0, 0
	for _, s := range files {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			total++
			n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if n > 60 {
				long++
				t.Logf("%s: %s has %d lines", s.path, fn.Name.Name, n)
			}
			if n > 100 && !excused[s.path+":"+fn.Name.Name] {
				t.Errorf("%s: %s has %d lines, 100 is the most", s.path, fn.Name.Name, n)
			}
		}
	}
	if long*100 > total*3 {
		t.Errorf("%d of %d functions have over 60 lines, 3 %% is the most", long, total)
	}
}

func TestFilesStayShort(t *testing.T) {
	_, files := sources(t)
	var sizes []int
	for _, s := range files {
		sizes = append(sizes, s.lines)
		if s.lines > 800 {
			t.Errorf("%s has %d lines, 800 is the most", s.path, s.lines)
		}
	}
	sort.Ints(sizes)
	if p90 := sizes[len(sizes)*9/10]; p90 > 350 {
		t.Errorf("90 %% of the files should have at most 350 lines, here it is %d", p90)
	}
}

func TestNoGodObjects(t *testing.T) {
	_, files := sources(t)
	excused := exceptions(t, "struct")
	methods := map[string]int{}
	for _, s := range files {
		if s.test {
			continue
		}
		dir := filepath.Dir(s.path)
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					methods[dir+"."+receiver(d.Recv.List[0].Type)]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					checkType(t, dir, spec, excused)
				}
			}
		}
	}
	tooMany := exceptions(t, "methods")
	for name, n := range methods {
		if n > 30 && !tooMany[name] {
			t.Errorf("%s has %d methods, 30 is the most", name, n)
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr:
		return receiver(e.X)
	}
	return "?"
}

// records and options may have many fields: they are data that other software defined, or choices with useful zero values.
var recordSuffixes = []string{"Options", "Request", "Response", "Record", "Config", "Allocation", "Stats", "View", "Input", "Flags", "Image", "Row"}

func checkType(t *testing.T, dir string, spec ast.Spec, excused map[string]bool) {
	ts, ok := spec.(*ast.TypeSpec)
	if !ok {
		return
	}
	name := dir + "." + ts.Name.Name
	switch typ := ts.Type.(type) {
	case *ast.StructType:
		n := 0
		for _, f := range typ.Fields.List {
			n += max(1, len(f.Names))
		}
		for _, suffix := range recordSuffixes {
			if strings.HasSuffix(strings.ToLower(ts.Name.Name), strings.ToLower(suffix)) {
				return
			}
		}
		if n > 15 && !excused[name] {
			t.Errorf("struct %s has %d fields, 15 is the most", name, n)
		}
	case *ast.InterfaceType:
		if n := len(typ.Methods.List); n > 9 {
			t.Errorf("interface %s has %d methods, 9 is the most", name, n)
		}
	}
}

func TestFewParameters(t *testing.T) {
	_, files := sources(t)
	excused := exceptions(t, "parameters")
	for _, s := range files {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := 0
			for i, f := range fn.Type.Params.List {
				if sel, ok := f.Type.(*ast.SelectorExpr); i == 0 && ok && sel.Sel.Name == "Context" {
					continue
				}
				n += max(1, len(f.Names))
			}
			if n > 4 && !excused[s.path+":"+fn.Name.Name] {
				t.Errorf("%s: %s has %d parameters beside the context, 4 is the most", s.path, fn.Name.Name, n)
			}
		}
	}
}

func TestNoHiddenStart(t *testing.T) {
	_, files := sources(t)
	inits := 0
	for _, s := range files {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				inits++
				t.Logf("%s has an init()", s.path)
			}
		}
	}
	if inits > 2 {
		t.Errorf("%d init() functions, 2 is the most", inits)
	}
}

func TestContextsComeFromMain(t *testing.T) {
	fset, files := sources(t)
	excused := exceptions(t, "context")
	for _, s := range files {
		if s.test || strings.HasPrefix(s.path, "cmd/") || strings.HasPrefix(s.path, "test/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "context" && (n.Sel.Name == "Background" || n.Sel.Name == "TODO") && !excused[s.path] {
					t.Errorf("%s: context.%s: contexts come from the caller", fset.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if sel, ok := f.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" && !excused[s.path] {
						if x, ok := sel.X.(*ast.Ident); ok && x.Name == "context" {
							t.Errorf("%s: a context in a struct", fset.Position(f.Pos()))
						}
					}
				}
			}
			return true
		})
	}
}

func TestUnsafeStaysInItsFiles(t *testing.T) {
	_, files := sources(t)
	for _, s := range files {
		if s.test || strings.HasSuffix(s.path, "_unsafe.go") {
			continue
		}
		for _, imp := range s.file.Imports {
			if imp.Path.Value == `"unsafe"` || imp.Path.Value == `"C"` {
				t.Errorf("%s imports %s: that belongs in a *_unsafe.go file", s.path, imp.Path.Value)
			}
		}
	}
}

// TestAddressesArePointers: an address that is kept as a number stays what it is when the goroutine's stack moves, and the kernel then reads and writes where
// the stack has been. Structures for system calls have pointers in them.
func TestAddressesArePointers(t *testing.T) {
	fset, files := sources(t)
	calls := func(n ast.Node, name string) *ast.CallExpr {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return nil
		}
		if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != name {
			return nil
		}
		return call
	}
	for _, s := range files {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if outer := calls(n, "uint64"); outer != nil && calls(outer.Args[0], "uintptr") != nil {
				t.Errorf("%s: an address as a number: make it an unsafe.Pointer", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

func TestMainsAreShort(t *testing.T) {
	_, files := sources(t)
	for _, s := range files {
		if filepath.Base(s.path) == "main.go" && s.lines > 51 {
			t.Errorf("%s has %d lines, 50 is the most", s.path, s.lines)
		}
	}
}

func TestErrorsSayWhatAndOnWhat(t *testing.T) {
	fset, files := sources(t)
	total, failed := 0, 0
	for _, s := range files {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			lit, isLit := call.Args[0].(*ast.BasicLit)
			if !ok || !isLit || (sel.Sel.Name != "Errorf" && sel.Sel.Name != "New") {
				return true
			}
			total++
			if strings.Contains(lit.Value, "failed to") || strings.Contains(lit.Value, "unable to") {
				failed++
				t.Logf("%s: %s", fset.Position(lit.Pos()), lit.Value)
			}
			return true
		})
	}
	if failed*100 > total*3 {
		t.Errorf("%d of %d errors say that something failed instead of what was tried on what", failed, total)
	}
}
