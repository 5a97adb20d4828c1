// Package graphql answers GraphQL requests from a tree of values, without a schema: a client may ask for whatever it likes, and a field
// that the tree does not have is null. It knows operations, variables with defaults, aliases, named and inline fragments, @skip, @include and
// __typename; it has no introspection and no subscriptions. Everything about a request is bounded (Limits): its text, its depth, and how many
// values its answer has. It knows nothing of Drover.
package graphql
