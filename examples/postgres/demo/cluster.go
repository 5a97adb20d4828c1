package main

import (
	"bufio"
	"fmt"
	"strings"
)

// clusterNode is a line of what `repmgr cluster show --csv` prints: the node, whether it can be reached, and what its server is.
type clusterNode struct{ id, reach, recovery string }

// parseCluster reads what `repmgr cluster show --csv` prints: ID, 0 or -1 for whether it is reached, 0 for a primary, 1 for a standby, -1 for unknown.
func parseCluster(text string) ([]clusterNode, error) {
	var nodes []clusterNode
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		fields := strings.Split(lines.Text(), ",")
		if len(fields) != 3 {
			return nil, fmt.Errorf("repmgr printed %.80q, which is no node", lines.Text())
		}
		nodes = append(nodes, clusterNode{fields[0], fields[1], fields[2]})
	}
	return nodes, lines.Err()
}

// sick says what is wrong with a cluster; empty when all of its members are there, one of them the primary.
func sick(nodes []clusterNode, members int) string {
	primaries := 0
	for _, n := range nodes {
		if n.reach != "0" || n.recovery != "0" && n.recovery != "1" {
			return fmt.Sprintf("node %s is not reached", n.id)
		}
		if n.recovery == "0" {
			primaries++
		}
	}
	if primaries != 1 || len(nodes) != members {
		return fmt.Sprintf("%d nodes of %d, %d primaries", len(nodes), members, primaries)
	}
	return ""
}
