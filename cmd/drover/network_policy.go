package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newNetworkPolicyCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "policy",
		Short: "What machines of an app may receive and send in their network",
		Long: `Without a policy a machine receives from, and sends to, all of its own network. A
direction for which a policy has a rule is closed but for what rules allow. What is
set holds at once, on whatever host a machine is, and while it runs; connections
that it does not allow are cut. docs/NETWORK.md has the whole of it.`,
	}, newPolicySetCommand(c), newPolicyListCommand(c), newPolicyShowCommand(c), newPolicyDeleteCommand(c))
}

func newPolicySetCommand(c *cli) *cobra.Command {
	var app, file string
	var ingress, egress, denyIngress, denyEgress, labels []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Make a network policy, or replace the one of its name",
		Long: `Set makes a policy for all machines of the app, or for those with the labels of
--label. A rule is WHAT, or WHAT@WHO. WHAT is any, tcp, udp, icmp, or one of the
first two with a port or a range: tcp/5432, udp/5000-5010. WHO is app:NAME, or a
prefix of addresses. With --file the policy is read as JSON, in the form of
POST /v1/apps/APP/network_policies ("-" is stdin).`,
		Example: `  drover network policy set only-web --app db --ingress tcp/5432@app:web
  drover network policy set no-out --app batch --egress udp/53 --egress tcp/443@fdaa:0:1::/48
  drover network policy set primary --app db --label role=primary --ingress any --deny-ingress any@app:batch
  drover network policy set only-web --app db --file policy.json`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := apiv1.NetworkPolicyRequest{}
			if file != "" {
				if len(ingress)+len(egress)+len(denyIngress)+len(denyEgress)+len(labels) > 0 {
					return usage(cmd, "--file has the whole policy: it does not go with flags for parts of one")
				}
				if err := c.readPolicy(file, &req); err != nil {
					return err
				}
			}
			req.Name = args[0]
			for _, part := range []struct {
				flag, action, direction string
				rules                   []string
			}{{"ingress", drover.PolicyAllow, drover.PolicyIngress, ingress}, {"egress", drover.PolicyAllow, drover.PolicyEgress, egress},
				{"deny-ingress", drover.PolicyDeny, drover.PolicyIngress, denyIngress}, {"deny-egress", drover.PolicyDeny, drover.PolicyEgress, denyEgress}} {
				for _, text := range part.rules {
					rule, err := parseRule(text)
					if err != nil {
						return usage(cmd, "--%s is %q: %w", part.flag, text, err)
					}
					rule.Action, rule.Direction = part.action, part.direction
					req.Rules = append(req.Rules, rule)
				}
			}
			if file == "" {
				req.Selector.All = len(labels) == 0
				var err error
				if req.Selector.Metadata, err = parsePolicyLabels(cmd, labels); err != nil {
					return err
				}
			}
			client, of, err := c.inApp(app)
			if err != nil {
				return err
			}
			p, err := client.SetPolicy(cmd.Context(), of, req)
			if err != nil {
				return err
			}
			return c.printPolicy(p)
		},
	}
	addDefaultApp(cmd, &app)
	flags := cmd.Flags()
	flags.StringArrayVar(&ingress, "ingress", nil, "let in, as WHAT or WHAT@WHO; repeated: each of them")
	flags.StringArrayVar(&egress, "egress", nil, "let out, in the same form")
	flags.StringArrayVar(&denyIngress, "deny-ingress", nil, "do not let in, whatever else lets it in")
	flags.StringArrayVar(&denyEgress, "deny-egress", nil, "do not let out, whatever else lets it out")
	flags.StringArrayVar(&labels, "label", nil, "only for machines with the label, as KEY=VALUE; repeated: with all of them")
	flags.StringVar(&file, "file", "", "read the policy from the file as JSON")
	return cmd
}

// maxPolicyFile bounds what is read.
const maxPolicyFile = 1 << 20

func (c *cli) readPolicy(path string, into *apiv1.NetworkPolicyRequest) error {
	var in io.Reader = c.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return drover.Errorf(drover.Invalid, "cannot read the policy: %w", err).WithField("file")
		}
		defer f.Close()
		in = f
	}
	decoder := json.NewDecoder(io.LimitReader(in, maxPolicyFile))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return drover.Errorf(drover.Invalid, "the policy in %s cannot be read: %w", path, err).WithField("file")
	}
	return nil
}

// parseRule reads WHAT or WHAT@WHO.
func parseRule(text string) (rule drover.PolicyRule, err error) {
	what, who, peers := strings.Cut(text, "@")
	if peers {
		peer := drover.PolicyPeer{CIDR: who}
		if app, ok := strings.CutPrefix(who, "app:"); ok {
			peer = drover.PolicyPeer{App: drover.AppName(app)}
		}
		rule.Peers = []drover.PolicyPeer{peer}
	}
	if what == "any" {
		return rule, nil
	}
	protocol, span, ported := strings.Cut(what, "/")
	port := drover.PolicyPort{Protocol: protocol}
	if ported {
		first, last, ranged := strings.Cut(span, "-")
		if port.Port, err = strconv.Atoi(first); err == nil && ranged {
			port.EndPort, err = strconv.Atoi(last)
		}
	}
	if err != nil || protocol != "tcp" && protocol != "udp" && protocol != "icmp" {
		return rule, drover.Errorf(drover.Invalid, "expected any, tcp, udp or icmp, with a port or a range such as tcp/5432 or udp/5000-5010")
	}
	rule.Ports = []drover.PolicyPort{port}
	return rule, nil
}

func parsePolicyLabels(cmd *cobra.Command, labels []string) (map[string]string, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	all := map[string]string{}
	for _, text := range labels {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usage(cmd, "--label is %q; expected KEY=VALUE", text)
		}
		all[key] = value
	}
	return all, nil
}

// ruleText writes a rule as it is given to set.
func ruleText(r drover.PolicyRule) string {
	var whats, whos []string
	for _, p := range r.Ports {
		text := p.Protocol
		if p.Port != 0 {
			text += "/" + strconv.Itoa(p.Port)
		}
		if p.EndPort != 0 {
			text += "-" + strconv.Itoa(p.EndPort)
		}
		whats = append(whats, text)
	}
	for _, p := range r.Peers {
		if p.App != "" {
			whos = append(whos, "app:"+string(p.App))
		} else {
			whos = append(whos, p.CIDR)
		}
	}
	if len(whats) == 0 {
		whats = []string{"any"}
	}
	text := strings.Join(whats, ",")
	if len(whos) > 0 {
		text += "@" + strings.Join(whos, ",")
	}
	return text
}

func selectorText(s drover.PolicySelector) string {
	if s.All {
		return "all"
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(s.Metadata)) {
		all = append(all, k+"="+s.Metadata[k])
	}
	return strings.Join(all, ",")
}

func (c *cli) printPolicy(p drover.NetworkPolicy) error {
	if c.json {
		return c.printJSON(p)
	}
	fields := [][2]string{{"Name", p.Name}, {"ID", p.ID}, {"Machines", selectorText(p.Selector)}, {"Created", c.moment(p.CreatedAt)}, {"Changed", c.moment(p.UpdatedAt)}}
	for _, r := range p.Rules {
		fields = append(fields, [2]string{r.Action + " " + r.Direction, ruleText(r)})
	}
	return c.printFields(fields...)
}

func newPolicyListCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the network policies of an app",
		Example: "  drover network policy list --app db",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, of, err := c.inApp(app)
			if err != nil {
				return err
			}
			all, err := client.Policies(cmd.Context(), of)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(all)
			}
			t := table{header: []string{"NAME", "ID", "MACHINES", "RULES", "AGE"}}
			for _, p := range all {
				var rules []string
				for _, r := range p.Rules {
					rules = append(rules, fmt.Sprintf("%s %s %s", r.Action, r.Direction, ruleText(r)))
				}
				t.add(p.Name, p.ID, selectorText(p.Selector), strings.Join(rules, "; "), c.age(p.CreatedAt))
			}
			return c.printTable(t, "No network policies: machines of the app reach all of their own network.")
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

func newPolicyShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a network policy",
		Example: "  drover network policy show only-web --app db",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, of, err := c.inApp(app)
			if err != nil {
				return err
			}
			p, err := client.Policy(cmd.Context(), of, args[0])
			if err != nil {
				return err
			}
			return c.printPolicy(p)
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

func newPolicyDeleteCommand(c *cli) *cobra.Command {
	var app string
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Take a network policy away: what it closed is open at once",
		Example: "  drover network policy delete only-web --app db --yes",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, of, err := c.inApp(app)
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, "open what the policy "+args[0]+" closes"); err != nil {
				return err
			}
			p, err := client.DeletePolicy(cmd.Context(), of, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(p)
			}
			return c.print("policy %s of app %s is gone\n", p.Name, of)
		},
	}
	addDefaultApp(cmd, &app)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
