package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"testing"
	"time"
)

// Answers are counted where somebody serves, losses where nobody does, and the sum is printed when it is ended.
func TestAskCountsAnswersAndLosses(t *testing.T) {
	there, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	answered := make(chan struct{}, 1000)
	go serve(&noticed{there, answered})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr().String()
	gone.Close()

	var out bytes.Buffer
	in, end := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ask([]string{"-every", "1ms", there.Addr().String(), nobody}, in, &out) }()
	for range 5 {
		select {
		case <-answered:
		case <-time.After(time.Minute):
			t.Fatal("nobody asked")
		}
	}
	end.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var sum asked
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		t.Fatal(err)
	}
	if sum.Asked < 6 || sum.Lost == 0 || sum.LostOf[nobody] != sum.Lost || sum.Problem == "" || sum.LongestMS <= 0 {
		t.Errorf("the sum is %+v", sum)
	}
}

// noticed tells of each connection that is taken.
type noticed struct {
	net.Listener
	taken chan struct{}
}

func (n *noticed) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.taken <- struct{}{}
	}
	return c, err
}
