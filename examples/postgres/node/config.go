package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// Where things are in the image and on the machine's volume.
const (
	programs = "/usr/lib/postgresql/15/bin"
	sockets  = "/run/postgresql"
	dataDir  = "/data"
	// Ports of PostgreSQL and of pgnode.
	pgPort   = 5432
	nodePort = 5480
)

// config is what a member is told by its machine's environment.
type config struct {
	self Member
	app  string
	// first: it makes a cluster when its volume is empty and no other member is there.
	first    bool
	password string
	uid, gid uint32
}

func (c config) pgdata() string     { return filepath.Join(dataDir, "pg") }
func (c config) repmgrConf() string { return filepath.Join(dataDir, "repmgr.conf") }
func (c config) passFile() string   { return filepath.Join(dataDir, "pgpass") }
func (c config) name() string       { return nodeName(c.self.ID) }

// nodeName is a member's name in repmgr, and its application_name as a standby.
func nodeName(id int) string { return fmt.Sprintf("node%d", id) }

// conninfo is how members reach each other: by the literal private address, which a machine has for life. The private network encrypts between
// hosts; TLS and Kerberos on top would only cost each connection, most of all on an emulated processor. tcp_user_timeout, in milliseconds, ends the wait for an
// answer of a host without power: keepalives are for connections on which nothing was asked.
func (c config) conninfo(address string) string {
	return fmt.Sprintf("host=%s port=%d user=repmgr dbname=repmgr connect_timeout=10 sslmode=disable gssencmode=disable keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=6000 passfile=%s",
		address, pgPort, c.passFile())
}

// token lets members give orders to each other.
func (c config) token() string {
	sum := sha256.Sum256([]byte("pgnode " + c.password))
	return hex.EncodeToString(sum[:])
}

func readConfig() (config, error) {
	c := config{app: os.Getenv("DROVER_APP_NAME"), first: os.Getenv("PG_FIRST") != "", password: os.Getenv("PG_PASSWORD")}
	var errs []error
	c.self.Address = os.Getenv("DROVER_PRIVATE_IP")
	id, err := memberID(c.self.Address)
	errs = append(errs, err)
	c.self.ID = id
	c.self.Voter = os.Getenv("PRIMARY_REGION") == "" || os.Getenv("PRIMARY_REGION") == os.Getenv("DROVER_REGION")
	if c.password == "" {
		errs = append(errs, errors.New("PG_PASSWORD is empty; set the app's secret by: drover secrets set --app APP PG_PASSWORD=WORD"))
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return c, errors.Join(append(errs, err)...)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	c.uid, c.gid = uint32(uid), uint32(gid)
	return c, errors.Join(append(errs, err1, err2)...)
}

// memberID makes a member's number of its machine's own part of the private address, so that nobody has to hand out numbers.
func memberID(address string) (int, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is6() {
		return 0, fmt.Errorf("DROVER_PRIVATE_IP is %q, which is no IPv6 address: does the machine's host have taps?", address)
	}
	b := a.As16()
	id := int(b[6])<<24 | int(b[7])<<16 | int(b[8])<<8 | int(b[9])
	if id <= 0 || id > 1<<31-1 {
		return 0, fmt.Errorf("address %s has no machine number that repmgr could take", address)
	}
	return id, nil
}
