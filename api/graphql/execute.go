package graphql

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
)

// Request is the body of a request.
type Request struct {
	Query         string         `json:"query"`
	Variables     map[string]any `json:"variables,omitempty"`
	OperationName string         `json:"operationName,omitempty"`
}

// Limits bounds what one request may cost.
type Limits struct {
	// Tokens bounds the request's text, Depth how deep its fields are nested, Values how many values the answer has.
	Tokens, Depth, Values int
}

// DefaultLimits are far above what the known clients ask for: their largest request has about 300 tokens and is 6 deep.
func DefaultLimits() Limits { return Limits{Tokens: 10_000, Depth: 20, Values: 200_000} }

// Root is where requests begin. How turns the error of a field into what the client is told.
type Root struct {
	Query, Mutation Object
	How             func(error) (message string, extensions map[string]any)
	Limits          Limits
}

// errTooMuch ends a request whose answer would be too large.
var errTooMuch = errors.New("the request asks for too much at once")

// Execute answers a request. Fields are looked up one after another, in the order of the request.
func (r Root) Execute(ctx context.Context, req Request) Response {
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Name: "request", Input: req.Query}, r.Limits.Tokens)
	if err != nil {
		return syntaxFailure(err)
	}
	op, err := operation(doc, req.OperationName)
	if err != nil {
		return Failure(err.Error(), nil)
	}
	root := r.Query
	switch op.Operation {
	case ast.Mutation:
		root = r.Mutation
	case ast.Subscription:
		return Failure("subscriptions are not served: ask again instead", nil)
	}
	x := &execution{root: r, ctx: ctx, vars: variables(op, req.Variables), fragments: doc.Fragments}
	data, err := x.object(root, op.SelectionSet, nil)
	if err != nil {
		return Failure(err.Error(), nil)
	}
	return Response{Data: data, Errors: x.errors}
}

func syntaxFailure(err error) Response {
	var e *gqlerror.Error
	if !errors.As(err, &e) {
		return Failure("the query cannot be read: "+err.Error(), nil)
	}
	answer := Failure("the query cannot be read: "+e.Message, nil)
	for _, l := range e.Locations {
		answer.Errors[0].Locations = append(answer.Errors[0].Locations, Location{Line: l.Line, Column: l.Column})
	}
	return answer
}

// operation picks the one that is to be executed.
func operation(doc *ast.QueryDocument, name string) (*ast.OperationDefinition, error) {
	if name == "" {
		if len(doc.Operations) != 1 {
			return nil, fmt.Errorf("the request has %d operations and no operationName; expected one of the two to be one", len(doc.Operations))
		}
		return doc.Operations[0], nil
	}
	if op := doc.Operations.ForName(name); op != nil {
		return op, nil
	}
	return nil, fmt.Errorf("the request has no operation %q", name)
}

// variables adds the defaults of those that were not given.
func variables(op *ast.OperationDefinition, given map[string]any) map[string]any {
	vars := map[string]any{}
	for _, d := range op.VariableDefinitions {
		if d.DefaultValue == nil {
			continue
		}
		if v, err := d.DefaultValue.Value(nil); err == nil {
			vars[d.Variable] = v
		}
	}
	for name, v := range given {
		vars[name] = v
	}
	return vars
}

// execution is one request under way.
type execution struct {
	root      Root
	ctx       context.Context
	vars      map[string]any
	fragments ast.FragmentDefinitionList
	values    int
	errors    []Error
}

// spend counts what the request costs.
func (x *execution) spend(path []any) error {
	x.values++
	if x.values > x.root.Limits.Values || len(path) > x.root.Limits.Depth {
		return errTooMuch
	}
	return x.ctx.Err()
}

// object answers a selection of an object's fields. Its errors end the request.
func (x *execution) object(o Object, set ast.SelectionSet, path []any) (members, error) {
	var chosen selection
	if err := x.collect(o, set, &chosen, nil); err != nil {
		return nil, err
	}
	out := make(members, 0, len(chosen))
	for _, f := range chosen {
		value, err := x.field(o, f, append(slices.Clip(path), f.key))
		if err != nil {
			return nil, err
		}
		out = append(out, member{key: f.key, value: value})
	}
	return out, nil
}

// field answers one field. What goes wrong in looking it up is noted, and makes it null.
func (x *execution) field(o Object, f chosenField, path []any) (any, error) {
	if err := x.spend(path); err != nil {
		return nil, err
	}
	if f.field.Name == "__typename" {
		return o.Type, nil
	}
	value, ok := o.Values[f.field.Name]
	find := o.Fields[f.field.Name]
	if !ok && find == nil && o.Unknown != nil {
		x.fail(o.Unknown(f.field.Name), path, f.field)
		return nil, nil
	}
	if !ok && find != nil {
		args, err := x.args(f.field.Arguments)
		if err == nil {
			value, err = find(x.ctx, args)
		}
		if err != nil {
			x.fail(err, path, f.field)
			return nil, nil
		}
	}
	switch v := value.(type) {
	case Object:
		return x.object(v, f.set, path)
	case []Object:
		list := make([]members, 0, len(v))
		for i, item := range v {
			answer, err := x.object(item, f.set, append(slices.Clip(path), i))
			if err != nil {
				return nil, err
			}
			list = append(list, answer)
		}
		return list, nil
	}
	return value, nil
}

func (x *execution) fail(err error, path []any, f *ast.Field) {
	message, extensions := x.root.How(err)
	e := Error{Message: message, Path: path, Extensions: extensions}
	if f.Position != nil {
		e.Locations = []Location{{Line: f.Position.Line, Column: f.Position.Column}}
	}
	x.errors = append(x.errors, e)
}

// args puts the variables into arguments.
func (x *execution) args(list ast.ArgumentList) (Args, error) {
	args := Args{}
	for _, a := range list {
		if a.Value.Kind == ast.Variable {
			if _, given := x.vars[a.Value.Raw]; !given {
				continue
			}
		}
		v, err := a.Value.Value(x.vars)
		if err != nil {
			return nil, fmt.Errorf("the argument %q cannot be read: %w", a.Name, err)
		}
		if v != nil {
			args[a.Name] = v
		}
	}
	return args, nil
}
