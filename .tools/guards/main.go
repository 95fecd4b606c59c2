// Command guards checks what the comments of locks say: make lint.
//
// The comment of a mutex in a struct names the fields that it guards, as "mu guards the rest." (the fields below it) or
// "mu guards a, b and c."; "mu serializes ..." is for a lock of an action. A guarded field is used in functions that
// lock the mutex of the same value before, or whose comment has "mu is held", "with mu held", or "needs no mu" with
// the reason. A value that a function has just made needs no lock. Tests are not checked.
//
//	guards PACKAGE...
package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/singlechecker"
)

var guards = &analysis.Analyzer{Name: "guards", Doc: "guarded fields are used with their locks held", Run: run}

func main() { singlechecker.Main(guards) }

// locks are the names of the mutexes by the fields that they guard.
type locks map[types.Object]string

func run(pass *analysis.Pass) (any, error) {
	guarded := locks{}
	visit := func(see func(ast.Node) bool) {
		for _, f := range pass.Files {
			if !strings.HasSuffix(pass.Fset.Position(f.Pos()).Filename, "_test.go") {
				ast.Inspect(f, see)
			}
		}
	}
	visit(func(n ast.Node) bool {
		if s, ok := n.(*ast.StructType); ok {
			guarded.add(pass, s)
		}
		return true
	})
	visit(func(n ast.Node) bool {
		if fn, ok := n.(*ast.FuncDecl); ok && fn.Body != nil {
			guarded.check(pass, fn)
		}
		return true
	})
	return nil, nil //nolint:nilnil // no analyzer uses what this one finds
}

var (
	claim = regexp.MustCompile(`^(\w+)\s+(?:serializes\b|guards\s+(the\s+rest|\w+(?:,\s+\w+)*(?:\s+and\s+\w+)?)\s*[.,;:])`)
	word  = regexp.MustCompile(`\w+`)
)

// add takes in what the mutexes of a struct guard.
func (g locks) add(pass *analysis.Pass, s *ast.StructType) {
	for i, field := range s.Fields.List {
		t := pass.TypesInfo.TypeOf(field.Type).String()
		if len(field.Names) != 1 || t != "sync.Mutex" && t != "sync.RWMutex" {
			continue
		}
		mu, says := field.Names[0].Name, claim.FindStringSubmatch(field.Doc.Text())
		if says == nil || says[1] != mu {
			pass.Reportf(field.Pos(), "the comment of %s does not begin with \"%[1]s guards the rest.\", "+
				"\"%[1]s guards a and b.\" or \"%[1]s serializes\"", mu)
			continue
		}
		names, rest := map[string]bool{}, strings.HasPrefix(says[2], "the")
		for _, name := range word.FindAllString(strings.ReplaceAll(says[2], " and ", " "), -1) {
			names[name] = !rest
		}
		for j, other := range s.Fields.List {
			for _, v := range declared(pass, other) {
				if rest && j > i || names[v.Name()] {
					g[v] = mu
					delete(names, v.Name())
				}
			}
		}
		for name, missing := range names {
			if missing {
				pass.Reportf(field.Pos(), "%s guards %s, which is no field", mu, name)
			}
		}
	}
}

// declared are the variables that a line of a struct declares.
func declared(pass *analysis.Pass, f *ast.Field) (vars []types.Object) {
	for _, name := range f.Names {
		vars = append(vars, pass.TypesInfo.Defs[name])
	}
	if id, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 {
		// Of an embedded field.
		vars = append(vars, pass.TypesInfo.Defs[id])
	}
	return vars
}

// check reports the uses of guarded fields in a function that does not hold their locks.
func (g locks) check(pass *analysis.Pass, fn *ast.FuncDecl) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		use, ok := n.(*ast.SelectorExpr)
		if !ok || pass.TypesInfo.Selections[use] == nil {
			return true
		}
		mu := g[pass.TypesInfo.Uses[use.Sel]]
		if mu != "" && !held(fn, types.ExprString(use.X), mu, use.Pos()) && !made(pass, fn, use.X) {
			pass.Reportf(use.Pos(), "%s is used without %s, which guards it", types.ExprString(use), mu)
		}
		return true
	})
}

// held reports whether a function locks the mutex of a value before a place, or says why it need not.
func held(fn *ast.FuncDecl, value, mu string, at token.Pos) bool {
	says := regexp.MustCompile(`\b` + mu + `\s+(?:(?:is|are|and\s+[\w.]+\s+are)\s+)?held\b|needs\s+no\s+` + mu + `\b`)
	found := says.MatchString(fn.Doc.Text())
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && call.Pos() < at {
			lock, of := types.ExprString(call.Fun), value+"."+mu
			found = found || lock == of+".Lock" || lock == of+".RLock" || lock == of+".TryLock"
		}
		return !found
	})
	return found
}

// made reports whether a value is a variable that the function sets to a literal.
func made(pass *analysis.Pass, fn *ast.FuncDecl, value ast.Expr) (literal bool) {
	id, ok := value.(*ast.Ident)
	if !ok {
		return false
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		for i := 0; ok && i < min(len(a.Lhs), len(a.Rhs)); i++ {
			left, ok := a.Lhs[i].(*ast.Ident)
			if ok && pass.TypesInfo.Defs[left] != nil && pass.TypesInfo.Defs[left] == pass.TypesInfo.Uses[id] {
				literal = strings.HasSuffix(types.ExprString(a.Rhs[i]), "}")
			}
		}
		return !literal
	})
	return literal
}
