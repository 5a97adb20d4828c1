package netdev

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"drover"
)

// insideEnv marks the copy of the test binary that runs in a fresh network namespace.
const insideEnv = "NETDEV_TEST_INSIDE"

// TestMain runs every test in a network namespace of its own, in a user namespace of its own where the tests are not run by root, so
// that no test can touch the machine's network and none can leave anything.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "in the namespace:", err)
		os.Exit(1)
	}
}

// mustTaps returns Taps where the tests may make devices, and says why it skips where not.
func mustTaps(t *testing.T) *Taps {
	t.Helper()
	network, reason := Choose(t.Context())
	taps, ok := network.(*Taps)
	if !ok {
		t.Skip(reason)
	}
	return taps
}

// routes lists the destinations routed to a device.
func routes(t *testing.T, name string) []string {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range list {
		out = append(out, r.Dst.String())
	}
	return out
}

func attached(t *testing.T, taps *Taps) []drover.MachineID {
	t.Helper()
	ids, err := taps.Attached(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

func TestTapsAttachAndDetach(t *testing.T) {
	taps := mustTaps(t)
	a, b := drover.MachineID("0123456789abcd"), drover.MachineID("fedcba98765432")
	for range 2 { // twice: everything may be repeated
		name, err := taps.Attach(t.Context(), a, "fdaa:0:1::5")
		if err != nil || name != "dm0123456789ab" {
			t.Fatalf("%q, %v", name, err)
		}
	}
	if got := routes(t, TapName(a)); !slices.Contains(got, "fdaa:0:1::5/128") {
		t.Errorf("routes: %v", got)
	}
	link, err := netlink.LinkByName(TapName(a))
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil || !slices.ContainsFunc(addrs, func(x netlink.Addr) bool { return x.IPNet.String() == "fe80::1/64" }) {
		t.Errorf("addresses: %v, %v", addrs, err)
	}
	if _, err := taps.Attach(t.Context(), b, ""); err != nil {
		t.Fatal(err)
	}
	if got := attached(t, taps); !slices.Equal(got, []drover.MachineID{a, b}) {
		t.Errorf("attached: %v", got)
	}
	for range 2 {
		if err := taps.Detach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if got := attached(t, taps); !slices.Equal(got, []drover.MachineID{b}) {
		t.Errorf("attached after detach: %v", got)
	}
	if err := taps.Detach(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestTapsKeepMachinesApart(t *testing.T) {
	taps := mustTaps(t)
	// The two share the digits that a device name has room for.
	a, b := drover.MachineID("0123456789abaa"), drover.MachineID("0123456789abbb")
	if _, err := taps.Attach(t.Context(), a, "fdaa::a"); err != nil {
		t.Fatal(err)
	}
	if _, err := taps.Attach(t.Context(), b, "fdaa::b"); !drover.Is(err, drover.Exists) {
		t.Errorf("the device was given to another machine: %v", err)
	}
	if err := taps.Detach(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := attached(t, taps); !slices.Equal(got, []drover.MachineID{a}) {
		t.Errorf("detaching b left %v", got)
	}
	if err := taps.Detach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func TestTapsRefuseABadAddress(t *testing.T) {
	taps := mustTaps(t)
	if _, err := taps.Attach(t.Context(), "0123456789abcd", "fdaa::x"); !drover.Is(err, drover.Invalid) {
		t.Fatal(err)
	}
	if got := attached(t, taps); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestTapIsUsableByTheVMM(t *testing.T) {
	taps := mustTaps(t)
	name, err := taps.Attach(t.Context(), "aaaaaaaaaaaaaa", "fdaa::1")
	if err != nil {
		t.Fatal(err)
	}
	defer taps.Detach(context.WithoutCancel(t.Context()), "aaaaaaaaaaaaaa")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("QEMU is not installed")
	}
	cmd := exec.CommandContext(t.Context(), qemu, "-M", "none", "-nodefaults", "-display", "none", "-monitor", "stdio",
		"-netdev", "tap,id=n0,ifname="+name+",script=no,downscript=no")
	cmd.Stdin = strings.NewReader("quit\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestNamespacesTalkOverABridge(t *testing.T) {
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	subnet := net.IPNet{IP: net.IPv4(10, 77, 0, 254), Mask: net.CIDRMask(24, 32)}
	if err := ns.AddBridge("br0", subnet); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddPort("p1", "peer1", net.HardwareAddr{2, 0, 0, 0, 0, 1}, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if err := ns.Plug("p1", "br0"); err != nil {
		t.Fatal(err)
	}
	mine := net.IPNet{IP: net.IPv4(10, 77, 0, 1), Mask: net.CIDRMask(24, 32)}
	if err := StartLink(t.Context(), "peer1", mine); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", "10.77.0.254:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for range 2 {
		if err := ns.Remove("p1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := netlink.LinkByName("peer1"); !isNoLink(err) {
		t.Errorf("the other end of the pair is still there: %v", err)
	}
	if links, err := ns.Links(); err != nil || slices.Contains(links, "p1") {
		t.Errorf("links: %v, %v", links, err)
	}
}

func TestStartLinkGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := StartLink(ctx, "nosuch"); !drover.Is(err, drover.Unavailable) {
		t.Fatal(err)
	}
}

func TestUserHasNoDevices(t *testing.T) {
	tap, err := User{}.Attach(t.Context(), "0123456789abcd", "fdaa::1")
	if tap != "" || err != nil {
		t.Fatal(tap, err)
	}
}
