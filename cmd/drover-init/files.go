package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// writeNames sets the hostname and writes /etc/hosts, and /etc/resolv.conf when the config has name servers.
func writeNames(cfg guest.Config) error {
	if cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
			return fmt.Errorf("cannot set the hostname %q: %w", cfg.Hostname, err)
		}
	}
	if err := writeFile("/etc/hosts", hostsFile(cfg)); err != nil {
		return err
	}
	if len(cfg.DNS) == 0 {
		return nil
	}
	return writeFile("/etc/resolv.conf", resolvFile(cfg.DNS))
}

func hostsFile(cfg guest.Config) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if cfg.Hostname != "" {
		own := cfg.Network.Address
		if own == "" {
			own = "127.0.1.1"
		}
		fmt.Fprintf(&b, "%s\t%s\n", own, cfg.Hostname)
	}
	for _, h := range cfg.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, strings.Join(h.Names, " "))
	}
	return b.Bytes()
}

func resolvFile(servers []string) []byte {
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return b.Bytes()
}

// writeFile replaces a file of the root disk, or the link that the image has in its place, unless it has the content already: a boot
// that changes nothing writes nothing.
func writeFile(path string, content []byte) error {
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			return nil
		}
	}
	if err := makeDir(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
