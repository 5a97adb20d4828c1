package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// netlink asks the kernel to change links, addresses and routes (rtnetlink(7)).
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	return &netlink{fd: fd}, nil
}

// Close closes the socket.
func (n *netlink) Close() error { return unix.Close(n.fd) }

// linkUp brings an interface up; mtu 0 leaves the MTU as it is.
func (n *netlink) linkUp(index, mtu int) error {
	// struct ifinfomsg: family, pad, type(2), index(4), flags(4), change(4)
	body := make([]byte, 0, 32)
	body = append(body, unix.AF_UNSPEC, 0, 0, 0)
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	body = binary.NativeEndian.AppendUint32(body, unix.IFF_UP)
	body = binary.NativeEndian.AppendUint32(body, unix.IFF_UP)
	if mtu > 0 {
		body = attribute(body, unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu)))
	}
	return n.request(unix.RTM_NEWLINK, 0, body)
}

// addAddress adds an address; one that is there already is no error. IPv6 does not look for others that have it.
func (n *netlink) addAddress(index int, p netip.Prefix) error {
	// struct ifaddrmsg: family, prefix length, flags, scope, index(4)
	family, flags := byte(unix.AF_INET), byte(0)
	if p.Addr().Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD
	}
	body := binary.NativeEndian.AppendUint32([]byte{family, byte(p.Bits()), flags, unix.RT_SCOPE_UNIVERSE}, uint32(index))
	body = attribute(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = attribute(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	err := n.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// addDefaultRoute sends everything by the gateway, which is taken to be on the link whatever the addresses say.
func (n *netlink) addDefaultRoute(index int, gateway netip.Addr) error {
	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags(4)
	family := byte(unix.AF_INET)
	if gateway.Is6() {
		family = unix.AF_INET6
	}
	body := []byte{family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST}
	body = binary.NativeEndian.AppendUint32(body, unix.RTNH_F_ONLINK)
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return n.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

// request sends one request and waits for the kernel's acknowledgement.
func (n *netlink) request(kind, flags uint16, body []byte) error {
	n.seq++
	// struct nlmsghdr: len(4), type(2), flags(2), seq(4), pid(4)
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = binary.NativeEndian.AppendUint32(message, n.seq)
	message = binary.NativeEndian.AppendUint32(message, 0)
	message = append(message, body...)
	if err := unix.Sendto(n.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot write to netlink: %w", err)
	}
	answer := make([]byte, 8192)
	for {
		size, _, err := unix.Recvfrom(n.fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read from netlink: %w", err)
		}
		if size < unix.SizeofNlMsghdr+4 {
			return errors.New("netlink gave a short answer")
		}
		if seq := binary.NativeEndian.Uint32(answer[8:]); seq != n.seq {
			continue // an answer to something else
		}
		if binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return errors.New("netlink gave an answer that is no acknowledgement")
		}
		if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
			return unix.Errno(-code)
		}
		return nil
	}
}

// attribute appends a struct rtattr (len(2), type(2), data) padded to 4 bytes.
func attribute(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}
