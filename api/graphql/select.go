package graphql

import (
	"fmt"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
)

// selection is what is asked of one object, in the order in which it was first asked. A field that is asked for several times, in fragments
// for example, is answered once, with all that was asked of it.
type selection []chosenField

type chosenField struct {
	key   string
	field *ast.Field
	set   ast.SelectionSet
}

func (s *selection) add(f *ast.Field) error {
	key := f.Alias
	if key == "" {
		key = f.Name
	}
	i := slices.IndexFunc(*s, func(c chosenField) bool { return c.key == key })
	if i < 0 {
		*s = append(*s, chosenField{key: key, field: f, set: f.SelectionSet})
		return nil
	}
	c := &(*s)[i]
	if c.field.Name != f.Name {
		return fmt.Errorf("%q is asked for as both %q and %q: give one of them another alias", key, c.field.Name, f.Name)
	}
	c.set = append(slices.Clip(c.set), f.SelectionSet...)
	return nil
}

// collect gathers the fields that are asked of an object, through all fragments. within are the names of the fragments that it is in.
func (x *execution) collect(o Object, set ast.SelectionSet, into *selection, within []string) error {
	for _, s := range set {
		x.values++
		if x.values > x.root.Limits.Values {
			return errTooMuch
		}
		var err error
		switch s := s.(type) {
		case *ast.Field:
			if x.wanted(s.Directives) {
				err = into.add(s)
			}
		case *ast.InlineFragment:
			if o.is(s.TypeCondition) && x.wanted(s.Directives) {
				err = x.collect(o, s.SelectionSet, into, within)
			}
		case *ast.FragmentSpread:
			fragment := x.fragments.ForName(s.Name)
			switch {
			case fragment == nil:
				err = fmt.Errorf("the request has no fragment %q", s.Name)
			case slices.Contains(within, s.Name):
				err = fmt.Errorf("the fragment %q contains itself", s.Name)
			case o.is(fragment.TypeCondition) && x.wanted(s.Directives):
				err = x.collect(o, fragment.SelectionSet, into, append(slices.Clip(within), s.Name))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wanted tells what @skip and @include say; other directives mean nothing here.
func (x *execution) wanted(list ast.DirectiveList) bool {
	for _, d := range list {
		condition, err := x.args(d.Arguments)
		if err != nil {
			continue
		}
		on, _ := condition["if"].(bool)
		if (d.Name == "skip" && on) || (d.Name == "include" && !on) {
			return false
		}
	}
	return true
}
