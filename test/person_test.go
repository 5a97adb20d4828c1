package test

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// personEnv makes a copy of the test's program somebody's computer: its value is the configuration that the person was given.
const personEnv = "DROVER_TEST_PERSON"

// person is a computer that is in the hosts' underlay and has nothing of Drover but a WireGuard client with a configuration that drover printed.
type person struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
}

type personReply struct {
	OK   bool
	Text string
}

// newPerson starts one beside a host: its sockets are in the host's network, its tunnel in one of its own.
func newPerson(t *testing.T, beside, config string) *person {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--net=/proc/"+meshProcess(t, beside)+"/ns/net", "--", exe)
	cmd.Env, cmd.Stderr = append(os.Environ(), personEnv+"="+config), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the person's computer: %v", err)
		}
	})
	return &person{t, in, json.NewDecoder(bufio.NewReader(out))}
}

// meshProcess finds the process that carries a host's packets.
func meshProcess(t *testing.T, host string) string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), "serve\x00mesh") && strings.Contains(string(line), filepath.Join(fleet.cli.Dir, "hosts", host)+"/") {
			return filepath.Base(filepath.Dir(path))
		}
	}
	t.Fatalf("host %s has no mesh", host)
	return ""
}

// try runs a command of a shell there.
func (p *person) try(command string) (string, bool) {
	p.t.Helper()
	if err := json.NewEncoder(p.in).Encode(command); err != nil {
		p.t.Fatal(err)
	}
	var r personReply
	if err := p.out.Decode(&r); err != nil {
		p.t.Fatal(err)
	}
	return r.Text, r.OK
}

// servePerson is the process of a person's computer.
func servePerson(config string, in io.Reader, out io.Writer) error {
	home := exec.Command("sleep", "1000000")
	home.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := home.Start(); err != nil {
		return err
	}
	defer func() { _ = home.Process.Kill(); _ = home.Wait() }()
	inHome := func(command string) (string, error) {
		out, err := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", home.Process.Pid), "sh", "-c", command).CombinedOutput()
		return string(out), err
	}
	values := map[string]string{}
	for line := range strings.Lines(config) {
		if key, value, ok := strings.Cut(line, " = "); ok {
			values[key] = strings.TrimSpace(value)
		}
	}
	dev, err := tun.CreateTUN("person0", 1380)
	if err != nil {
		return err
	}
	wg := device.NewDevice(dev, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	defer wg.Close()
	key := func(text string) string {
		raw, _ := base64.StdEncoding.DecodeString(text)
		return hex.EncodeToString(raw)
	}
	// More than the configuration says is let into the tunnel: what is not the person's to reach is to be refused at its other end.
	if err := wg.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=fdaa::/16\n", key(values["PrivateKey"]), key(values["PublicKey"]), values["Endpoint"])); err != nil {
		return err
	}
	link, err := netlink.LinkByName("person0")
	if err == nil {
		err = errors.Join(netlink.LinkSetNsPid(link, home.Process.Pid), wg.Up())
	}
	if err != nil {
		return err
	}
	if text, err := inHome("ip link set lo up && ip -6 addr add " + values["Address"] + " dev person0 nodad && ip link set person0 mtu " + values["MTU"] + " up && ip -6 route add fdaa::/16 dev person0"); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	commands := json.NewDecoder(bufio.NewReader(in))
	for {
		var command string
		if err := commands.Decode(&command); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		text, err := inHome(command)
		if err := json.NewEncoder(out).Encode(personReply{err == nil, text}); err != nil {
			return err
		}
	}
}
