package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// peerBound is how long another member may take to tell its state.
const peerBound = 2 * time.Second

func memberURL(address, what string) string {
	return "http://" + net.JoinHostPort(address, strconv.Itoa(nodePort)) + "/" + what
}

// known lists the addresses of all members that were ever heard of, and of the app's machines that run now.
func (n *node) known(ctx context.Context) []string {
	addresses := map[string]bool{}
	n.mu.Lock()
	for _, m := range n.members {
		addresses[m.Address] = true
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, peerBound)
	defer cancel()
	// Names are of machines that run. When nobody answers for them, those that are known must do.
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip6", n.cfg.app+".internal")
	if err != nil {
		n.log.Debug("names are not answered", "err", err)
	}
	for _, a := range found {
		addresses[a.String()] = true
	}
	delete(addresses, n.cfg.self.Address)
	var all []string
	for a := range addresses {
		if _, err := netip.ParseAddr(a); err == nil {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return all
}

// ask asks all other members what they are. Who does not answer is not in the answer.
func (n *node) ask(ctx context.Context) []State {
	var mu sync.Mutex
	var all sync.WaitGroup
	var answers []State
	for _, address := range n.known(ctx) {
		all.Go(func() {
			s, err := stateOf(ctx, address)
			if err != nil {
				n.log.Debug("member does not answer", "address", address, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, s)
		})
	}
	all.Wait()
	slices.SortFunc(answers, func(a, b State) int { return a.ID - b.ID })
	n.mu.Lock()
	n.answers = answers
	n.mu.Unlock()
	return answers
}

func stateOf(ctx context.Context, address string) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, peerBound)
	defer cancel()
	var s State
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, memberURL(address, "state"), nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close() // it was only read
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("member at %s told no state: %w", address, err)
	}
	return s, nil
}

// poke lets all other members look at what has changed.
func (n *node) poke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, peerBound)
	defer cancel()
	var all sync.WaitGroup
	for _, address := range n.known(ctx) {
		all.Go(func() {
			if _, err := post(ctx, n.cfg, address, "follow", nil); err != nil {
				n.log.Info("member is not told", "address", address, "err", err) // it looks by itself soon
			}
		})
	}
	all.Wait()
}
