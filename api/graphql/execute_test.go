package graphql_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"drover/api/graphql"
)

// root has a volume, a list, a field that fails, and one that shows its arguments.
func root() graphql.Root {
	volume := graphql.Object{Type: "Volume", Also: []string{"Node"}, Values: map[string]any{"id": "vol_1", "size": 3, "empty": nil,
		"app": graphql.Object{Type: "App", Values: map[string]any{"name": "shop"}}}}
	return graphql.Root{
		Query: graphql.Object{Type: "Query",
			Values: map[string]any{"volume": volume, "volumes": []graphql.Object{volume, volume}, "none": []graphql.Object(nil)},
			Fields: map[string]graphql.Field{
				"broken": func(context.Context, graphql.Args) (any, error) { return nil, errors.New("it is broken") },
				"echo":   func(_ context.Context, args graphql.Args) (any, error) { return args, nil },
			}},
		Mutation: graphql.Object{Type: "Mutation", Unknown: func(name string) error { return errors.New("no mutation " + name) },
			Values: map[string]any{"done": true}},
		How:    func(err error) (string, map[string]any) { return err.Error(), map[string]any{"code": "test"} },
		Limits: graphql.DefaultLimits(),
	}
}

func answer(t *testing.T, r graphql.Root, query, variables, operation string) string {
	t.Helper()
	req := graphql.Request{Query: query, OperationName: operation}
	if variables != "" {
		if err := json.Unmarshal([]byte(variables), &req.Variables); err != nil {
			t.Fatal(err)
		}
	}
	got, err := json.Marshal(r.Execute(t.Context(), req))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestExecute(t *testing.T) {
	for name, c := range map[string]struct{ query, variables, operation, want string }{
		"plain":                 {`{volume{id size}}`, "", "", `{"data":{"volume":{"id":"vol_1","size":3}}}`},
		"alias, order as asked": {`{b:volume{size id} a:volume{id}}`, "", "", `{"data":{"b":{"size":3,"id":"vol_1"},"a":{"id":"vol_1"}}}`},
		"unknown is null":       {`{nothing volume{what{ever} empty}}`, "", "", `{"data":{"nothing":null,"volume":{"what":null,"empty":null}}}`},
		"lists":                 {`{volumes{id} none{id}}`, "", "", `{"data":{"volumes":[{"id":"vol_1"},{"id":"vol_1"}],"none":[]}}`},
		"inline fragments":      {`{volume{__typename ... on Volume{app{name}} ... on Machine{size} ... on Node{id} ...{size}}}`, "", "", `{"data":{"volume":{"__typename":"Volume","app":{"name":"shop"},"id":"vol_1","size":3}}}`},
		"named fragments":       {`query Q{volume{...v}} fragment v on Volume{id ...w} fragment w on Volume{app{name}}`, "", "Q", `{"data":{"volume":{"id":"vol_1","app":{"name":"shop"}}}}`},
		"fields are merged":     {`{volume{app{name}} volume{id app{__typename}}}`, "", "", `{"data":{"volume":{"app":{"name":"shop","__typename":"App"},"id":"vol_1"}}}`},
		"variables":             {`query($in: In!, $n: Int = 7, $gone: String){echo(in:$in, n:$n, gone:$gone, list:[1,$n], o:{a:$n, b:$gone}, e: WORD)}`, `{"in":{"name":"x","ids":[1]}}`, "", `{"data":{"echo":{"e":"WORD","in":{"ids":[1],"name":"x"},"list":[1,7],"n":7,"o":{"a":7}}}}`},
		"undeclared variable":   {`{echo(a:$x)}`, "", "", `{"data":{"echo":{}}}`},
		"skip and include":      {`query($no:Boolean){volume{id @skip(if:true) size @include(if:$no) empty @include(if:true)}}`, `{"no":false}`, "", `{"data":{"volume":{"empty":null}}}`},
		"a field fails":         {`{broken volume{id}}`, "", "", `{"data":{"broken":null,"volume":{"id":"vol_1"}},"errors":[{"message":"it is broken","path":["broken"],"locations":[{"line":1,"column":2}],"extensions":{"code":"test"}}]}`},
		"mutation":              {`mutation{done}`, "", "", `{"data":{"done":true}}`},
		"unknown mutation":      {`mutation{m:launch(input:{}){x}}`, "", "", `{"data":{"m":null},"errors":[{"message":"no mutation launch","path":["m"],"locations":[{"line":1,"column":10}],"extensions":{"code":"test"}}]}`},
		"one of several":        {`query A{volume{id}} query B{volume{size}}`, "", "B", `{"data":{"volume":{"size":3}}}`},
		"none of several":       {`query A{volume{id}} query B{volume{size}}`, "", "", `{"data":null,"errors":[{"message":"the request has 2 operations and no operationName; expected one of the two to be one"}]}`},
		"unknown operation":     {`query A{volume{id}}`, "", "C", `{"data":null,"errors":[{"message":"the request has no operation \"C\""}]}`},
		"subscription":          {`subscription{x}`, "", "", `{"data":null,"errors":[{"message":"subscriptions are not served: ask again instead"}]}`},
		"unknown fragment":      {`{volume{...x}}`, "", "", `{"data":null,"errors":[{"message":"the request has no fragment \"x\""}]}`},
		"fragment in itself":    {`{volume{...a}} fragment a on Volume{...b} fragment b on Volume{...a}`, "", "", `{"data":null,"errors":[{"message":"the fragment \"a\" contains itself"}]}`},
		"two fields, one key":   {`{volume{x:id x:size}}`, "", "", `{"data":null,"errors":[{"message":"\"x\" is asked for as both \"id\" and \"size\": give one of them another alias"}]}`},
		"syntax":                {"{\n  volume{id", "", "", `{"data":null,"errors":[{"message":"the query cannot be read: Expected Name, found \u003cEOF\u003e","locations":[{"line":2,"column":12}]}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := answer(t, root(), c.query, c.variables, c.operation); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestWhatIsTooMuchIsRefused: no request of a size that is taken may cost more than its bounds.
func TestWhatIsTooMuchIsRefused(t *testing.T) {
	r := root()
	var loop graphql.Object
	loop = graphql.Object{Type: "Loop", Fields: map[string]graphql.Field{"again": func(context.Context, graphql.Args) (any, error) {
		return []graphql.Object{loop, loop, loop, loop}, nil
	}}}
	r.Query.Values["loop"] = loop
	r.Limits.Values = 5000
	fan := "{volume{...f00}}"
	for i := range 40 { // 2^40 fields, if nobody counted
		fan += " fragment f" + number(i) + " on Volume{...f" + number(i+1) + " ...on Volume{...f" + number(i+1) + "}}"
	}
	fan += " fragment f40 on Volume{id}"
	for name, query := range map[string]string{
		"deep":      "{loop" + strings.Repeat("{again", 40) + "{x}" + strings.Repeat("}", 40) + "}",
		"wide":      "{loop" + strings.Repeat("{again", 9) + "{x}" + strings.Repeat("}", 9) + "}",
		"fragments": fan,
		"long":      "{" + strings.Repeat("volume{id} ", 20_000) + "}",
	} {
		got := r.Execute(t.Context(), graphql.Request{Query: query})
		if got.Data != nil || len(got.Errors) != 1 {
			t.Errorf("%s: %d errors", name, len(got.Errors))
		}
	}
}

func number(i int) string { return string(rune('0'+i/10)) + string(rune('0'+i%10)) }

// FuzzExecute looks for requests that break the executor.
func FuzzExecute(f *testing.F) {
	f.Add(`query($a:Int=1){volume{...v} echo(a:$a)} fragment v on Volume{id}`, `{"a":2}`)
	f.Add(`mutation{done}`, `{}`)
	f.Fuzz(func(t *testing.T, query, variables string) {
		req := graphql.Request{Query: query}
		if json.Unmarshal([]byte(variables), &req.Variables) != nil {
			return
		}
		if _, err := json.Marshal(root().Execute(t.Context(), req)); err != nil {
			t.Error(err)
		}
	})
}
