package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// asked is what became of the requests of "writer ask".
type asked struct {
	Asked uint64 `json:"asked"`
	// Lost counts requests that failed or had no answer within the bound, LostOf by address.
	Lost   uint64            `json:"lost"`
	LostOf map[string]uint64 `json:"lost_of,omitempty"`
	// LongestMS is the longest time that an answer took, in milliseconds.
	LongestMS float64 `json:"longest_ms"`
	// Problem is what one of the lost requests failed with.
	Problem string `json:"problem,omitempty"`
}

// serve answers each line of each connection with the same line.
func serve(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			fmt.Printf("ACCEPT %v\n", err)
			return
		}
		go func() {
			defer c.Close()
			// Who asks sees by the missing answer that a connection broke.
			_, _ = io.Copy(c, c)
		}()
	}
}

// ask asks each address for an answer, over a new connection each time, one request after the other for each address, until in ends.
func ask(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("ask", flag.ContinueOnError)
	every := flags.Duration("every", 100*time.Millisecond, "pause between two requests to one address")
	bound := flags.Duration("bound", 10*time.Second, "time after which a request without an answer is lost")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("nobody to ask: name one or more of the form ADDRESS:PORT")
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var mu sync.Mutex
	var all sync.WaitGroup
	sum := asked{LostOf: map[string]uint64{}}
	for _, address := range flags.Args() {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began := time.Now()
				err := askOnce(address, fmt.Sprintf("%s %d\n", address, n), *bound)
				took := time.Since(began)
				mu.Lock()
				sum.Asked++
				sum.LongestMS = max(sum.LongestMS, float64(took.Microseconds())/1000)
				if err != nil {
					sum.Lost++
					sum.LostOf[address]++
					sum.Problem = err.Error()
				}
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(*every):
				}
			}
		})
	}
	_, err := io.Copy(io.Discard, in)
	stop()
	all.Wait()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(sum)
}

func askOnce(address, line string, bound time.Duration) error {
	c, err := net.DialTimeout("tcp", address, bound)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && answer != line {
		err = fmt.Errorf("asked %s for %q, got %q", address, line, answer)
	}
	return err
}
