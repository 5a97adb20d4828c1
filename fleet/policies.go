package fleet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drover"
)

// The bounds of policies: each is work for every host that has a machine of the app.
const (
	maxPolicies    = 50
	maxPolicyRules = 100
	maxRulePorts   = 100
	maxRulePeers   = 100
)

// SetPolicy makes a network policy of an app, or replaces the one of the name, at once and while machines run. It may be repeated.
func (f *Fleet) SetPolicy(ctx context.Context, app drover.AppName, p drover.NetworkPolicy) (drover.NetworkPolicy, error) {
	var none drover.NetworkPolicy
	if err := f.await(ctx); err != nil {
		return none, err
	}
	of, err := f.readApp(ctx, app)
	if err != nil {
		return none, err
	}
	if err := f.checkPolicy(ctx, of, &p); err != nil {
		return none, err
	}
	err = f.changePolicies(ctx, app, func(all *drover.AppPolicies) error {
		now := f.now().UTC()
		p.ID, p.CreatedAt, p.UpdatedAt = drover.NewPolicyID(), now, now
		for i, old := range all.Policies {
			if old.Name == p.Name {
				p.ID, p.CreatedAt = old.ID, old.CreatedAt
				all.Policies[i] = p
				return nil
			}
		}
		if len(all.Policies) >= maxPolicies {
			return drover.Errorf(drover.Exhausted, "app %q has %d network policies, which is the most", app, len(all.Policies))
		}
		all.Policies = append(all.Policies, p)
		return nil
	})
	if err == nil {
		err = f.stays(ctx, app)
	}
	return p, err
}

// Policies lists the network policies of an app, oldest first.
func (f *Fleet) Policies(ctx context.Context, app drover.AppName) ([]drover.NetworkPolicy, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	all, _, err := f.state.policies.get(ctx, string(app))
	if drover.Is(err, drover.NotFound) {
		err = nil
	}
	if all.Policies == nil {
		all.Policies = []drover.NetworkPolicy{}
	}
	return all.Policies, err
}

// Policy finds one by its ID or its name.
func (f *Fleet) Policy(ctx context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error) {
	all, err := f.Policies(ctx, app)
	if err != nil {
		return drover.NetworkPolicy{}, err
	}
	if i := policyAt(all, id); i >= 0 {
		return all[i], nil
	}
	return drover.NetworkPolicy{}, noPolicy(app, id)
}

func policyAt(all []drover.NetworkPolicy, id string) int {
	return slices.IndexFunc(all, func(p drover.NetworkPolicy) bool { return p.ID == id || p.Name == id })
}

func noPolicy(app drover.AppName, id string) error {
	return drover.Errorf(drover.NotFound, "app %q has no network policy %q", app, id).WithHint("'drover network policy list --app %s' shows those that there are", app)
}

// DeletePolicy takes a network policy away, by its ID or its name: what it closed is open at once.
func (f *Fleet) DeletePolicy(ctx context.Context, app drover.AppName, id string) (gone drover.NetworkPolicy, err error) {
	if err := f.await(ctx); err != nil {
		return gone, err
	}
	return gone, f.changePolicies(ctx, app, func(all *drover.AppPolicies) error {
		i := policyAt(all.Policies, id)
		if i < 0 {
			return noPolicy(app, id)
		}
		gone = all.Policies[i]
		all.Policies = slices.Delete(all.Policies, i, i+1)
		return nil
	})
}

// changePolicies changes the record of an app's policies by compare-and-set; one that is empty is removed.
func (f *Fleet) changePolicies(ctx context.Context, app drover.AppName, change func(*drover.AppPolicies) error) error {
	for range casTries {
		all, rev, err := f.state.policies.get(ctx, string(app))
		if err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
		next := drover.AppPolicies{App: app, Policies: slices.Clone(all.Policies)}
		if err := change(&next); err != nil {
			return err
		}
		switch {
		case len(next.Policies) == 0 && rev == 0:
			return nil
		case len(next.Policies) == 0:
			err = f.state.policies.remove(ctx, string(app), rev)
		case rev == 0:
			_, err = f.state.policies.create(ctx, string(app), next)
		default:
			_, err = f.state.policies.update(ctx, string(app), next, rev)
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return err
		}
	}
	return drover.Errorf(drover.Conflict, "the network policies of app %q were changed by others again and again", app)
}

// dropPolicies is for an app that is deleted.
func (f *Fleet) dropPolicies(ctx context.Context, app drover.AppName) error {
	err := f.state.policies.remove(ctx, string(app), 0)
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

// checkPolicy refuses what makes no sense, with the fields, and puts the rest into its one form.
func (f *Fleet) checkPolicy(ctx context.Context, app drover.App, p *drover.NetworkPolicy) error {
	var wrong problems
	if !drover.ValidName(p.Name) {
		wrong = append(wrong, badName("network policy", p.Name).WithField("name"))
	}
	if p.Selector.All == (len(p.Selector.Metadata) > 0) {
		wrong.add("selector", "expected one of the two: \"all\": true, or \"metadata\" with labels")
	}
	if len(p.Rules) == 0 || len(p.Rules) > maxPolicyRules {
		wrong.add("rules", "there are %d rules; expected 1 to %d", len(p.Rules), maxPolicyRules)
	}
	for i := range p.Rules {
		if err := f.checkRule(ctx, app, &p.Rules[i], fmt.Sprintf("rules[%d]", i), &wrong); err != nil {
			return err
		}
	}
	return wrong.err()
}

func (f *Fleet) checkRule(ctx context.Context, app drover.App, r *drover.PolicyRule, at string, wrong *problems) error {
	r.Action, r.Direction = strings.ToLower(r.Action), strings.ToLower(r.Direction)
	if r.Action != drover.PolicyAllow && r.Action != drover.PolicyDeny {
		wrong.add(at+".action", "%q is neither allow nor deny", r.Action)
	}
	if r.Direction != drover.PolicyIngress && r.Direction != drover.PolicyEgress {
		wrong.add(at+".direction", "%q is neither ingress nor egress", r.Direction)
	}
	if len(r.Ports) > maxRulePorts || len(r.Peers) > maxRulePeers {
		wrong.add(at, "there are %d ports and %d peers; the most are %d and %d", len(r.Ports), len(r.Peers), maxRulePorts, maxRulePeers)
		return nil
	}
	for i := range r.Ports {
		checkPolicyPort(&r.Ports[i], fmt.Sprintf("%s.ports[%d]", at, i), wrong)
	}
	for i := range r.Peers {
		if err := f.checkPolicyPeer(ctx, app, &r.Peers[i], fmt.Sprintf("%s.peers[%d]", at, i), wrong); err != nil {
			return err
		}
	}
	return nil
}

func checkPolicyPort(p *drover.PolicyPort, at string, wrong *problems) {
	p.Protocol = strings.ToLower(p.Protocol)
	switch p.Protocol {
	case "icmpv6":
		p.Protocol = "icmp"
	case "tcp", "udp", "icmp":
	default:
		wrong.add(at+".protocol", "%q is not tcp, udp or icmp", p.Protocol)
		return
	}
	const most = 65535
	switch {
	case p.Port < 0 || p.Port > most:
		wrong.add(at+".port", "%d is not a port: 1 to %d, or none for all", p.Port, most)
	case p.EndPort != 0 && (p.EndPort < p.Port || p.EndPort > most || p.Port == 0):
		wrong.add(at+".end_port", "%d does not end a range that begins at %d", p.EndPort, p.Port)
	case p.Protocol == "icmp" && p.Port != 0:
		wrong.add(at+".port", "icmp has no ports")
	}
}

func (f *Fleet) checkPolicyPeer(ctx context.Context, app drover.App, p *drover.PolicyPeer, at string, wrong *problems) error {
	if (p.App == "") == (p.CIDR == "") {
		wrong.add(at, "expected one of the two: an app, or a cidr")
		return nil
	}
	if p.App != "" {
		// One that is not there would let nobody in, silently; one of another network too.
		other, err := f.readApp(ctx, p.App)
		switch {
		case drover.Is(err, drover.NotFound), drover.Is(err, drover.Invalid), err == nil && (other.Organization != app.Organization || other.Network != app.Network):
			wrong.add(at+".app", "there is no app %q in the network of app %q", p.App, app.Name)
			return nil
		}
		return err
	}
	prefix, err := netip.ParsePrefix(p.CIDR)
	if a, aerr := netip.ParseAddr(p.CIDR); err != nil && aerr == nil {
		prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || !prefix.Addr().Is6() || prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" {
		wrong.add(at+".cidr", "%q is not a prefix of IPv6 addresses, such as fdaa:0:1:0:7::/112", p.CIDR)
		return nil
	}
	p.CIDR = prefix.Masked().String()
	return nil
}
