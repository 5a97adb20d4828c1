package nbd

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
)

// metaContext is one context that a client may choose, or has chosen. Its number is the same on every connection to the export.
type metaContext struct {
	id   uint32
	name string
}

// metaContext answers NBD_OPT_SET_META_CONTEXT and NBD_OPT_LIST_META_CONTEXT (section "Metadata querying").
func (n *negotiation) metaContext(ctx context.Context, opt option, data []byte) error {
	if opt == optSetMetaContext {
		n.contexts, n.contextsOf, n.compressed = nil, "", false // also when the new choice fails
	}
	if !n.structured {
		return n.refuse(opt, "NBD_OPT_STRUCTURED_REPLY must come before it")
	}
	name, queries, ok := parseMetaQueries(data)
	if !ok {
		return n.refuse(opt, "its data is malformed")
	}
	if err := n.open(ctx, name); err != nil {
		return n.replyError(opt, err)
	}
	found := matchContexts(n.session.Info.MetaContexts, queries, opt == optListMetaContext)
	var b []byte
	for _, c := range found {
		id := c.id
		if opt == optListMetaContext {
			id = 0 // reserved there
		}
		b = appendOptionReply(b, opt, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), c.name...))
	}
	if opt == optSetMetaContext {
		n.contexts, n.contextsOf = found, name
		if n.compressed = slices.Contains(queries, contextCompressed); n.compressed {
			b = appendOptionReply(b, opt, repMetaContext, append(binary.BigEndian.AppendUint32(nil, compressedID), contextCompressed...))
		}
	}
	return n.write(appendOptionReply(b, opt, repAck, nil))
}

// parseMetaQueries reads the data of both options: an export name and any number of queries.
func parseMetaQueries(data []byte) (name string, queries []string, ok bool) {
	name, rest, ok := cutString(data)
	if !ok {
		return "", nil, false
	}
	count, rest, ok := cutUint32(rest)
	if !ok || int64(count)*4 > int64(len(rest)) {
		return "", nil, false
	}
	for range count {
		var q string
		if q, rest, ok = cutString(rest); !ok {
			return "", nil, false
		}
		queries = append(queries, q)
	}
	return name, queries, len(rest) == 0
}

// matchContexts returns those of the export's contexts that the queries ask for. In a list, no query asks for all, and one that
// ends in a colon for a whole namespace.
func matchContexts(have, queries []string, list bool) []metaContext {
	var found []metaContext
	for i, name := range have {
		wanted := list && len(queries) == 0
		for _, q := range queries {
			namespace := list && strings.HasSuffix(q, ":") && strings.HasPrefix(name, q)
			wanted = wanted || q == name || namespace
		}
		if wanted {
			found = append(found, metaContext{id: uint32(i) + 1, name: name})
		}
	}
	return found
}
