package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

const probeMax = time.Minute // without the line that is waited for

// probeLine is what the client's `clade initiator probe --json` logs four times a second.
type probeLine struct {
	Warm      bool    `json:"warm"`
	LongestMs float64 `json:"longest_ms"`
	LinuxMs   float64 `json:"linux_ms"`
}

// probeLog follows the client's log. Any goroutine may call its methods.
type probeLog struct {
	done chan struct{} // closed when the log has ended

	mu    sync.Mutex
	lines []probeLine
	err   error
	grown chan struct{} // closed and made anew with every line
}

// follow reads the client's log from now on, until ctx ends.
func (l *lab) follow(ctx context.Context) *probeLog {
	p := &probeLog{done: make(chan struct{}), grown: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.end(p.read(ctx, l))
	}()
	return p
}

func (p *probeLog) read(ctx context.Context, l *lab) error {
	cmd := l.command(ctx, "docker", "logs", "-f", "--tail", "0", l.ids[clientName])
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var x probeLine
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			continue // a message for people
		}
		p.mu.Lock()
		p.lines = append(p.lines, x)
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
	}
	return errors.Join(lines.Err(), cmd.Wait(), errors.New("the client's log has ended"))
}

func (p *probeLog) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	close(p.grown)
	p.grown = make(chan struct{})
}

// len returns how many lines there are.
func (p *probeLog) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// await waits for a line that is so, the from-th at the earliest, and returns its number.
func (p *probeLog) await(ctx context.Context, from int, so func(probeLine) bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	for {
		p.mu.Lock()
		grown, err, last := p.grown, p.err, probeLine{}
		for ; from < len(p.lines); from++ {
			if last = p.lines[from]; so(last) {
				p.mu.Unlock()
				return from, nil
			}
		}
		p.mu.Unlock()
		if err != nil {
			return 0, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, fmt.Errorf("the client's probers do not go on well: %+v: %w", last, ctx.Err())
		}
	}
}

// longest returns the longest waits since line from.
func (p *probeLog) longest(from int) (library, linux time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines[min(from, len(p.lines)):] {
		library = max(library, time.Duration(l.LongestMs*float64(time.Millisecond)))
		linux = max(linux, time.Duration(l.LinuxMs*float64(time.Millisecond)))
	}
	return library, linux
}
