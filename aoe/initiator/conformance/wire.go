package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

// errNoAnswer: the target kept silent.
var errNoAnswer = errors.New("no answer")

// errInterrupted: the caller's context ended; the check says nothing about the target.
var errInterrupted = errors.New("interrupted")

// batchFrames is how many frames are taken from the port at once.
const batchFrames = 64

// wire sends frames to a port and collects the answers. One goroutine uses it.
type wire struct {
	port    link.Port
	poller  *link.Poller
	rx      []link.RxFrame
	timeout time.Duration // for an answer, over all copies of its request
	resend  time.Duration // between copies
	tag     uint32        // of the last request
}

func newWire(port link.Port, o *Options) (*wire, error) {
	poller, err := link.NewPoller(port)
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	return &wire{port: port, poller: poller, rx: make([]link.RxFrame, batchFrames), timeout: o.Timeout, resend: o.Resend,
		tag: o.TagSeed}, nil
}

func (w *wire) close() { w.poller.Close() }

// join receives frames for some MACs, until leave is called.
func (w *wire) join(macs ...aoe.MAC) (leave func(), err error) {
	var joined []aoe.MAC
	leave = func() {
		for _, m := range joined {
			_ = w.port.Leave(m) // it was ours alone; the port goes on without it or is closed
		}
	}
	for _, m := range macs {
		if m == w.port.MAC() {
			continue
		}
		if err := w.port.Join(m); err != nil {
			leave()
			return nil, fmt.Errorf("conformance: %w", err)
		}
		joined = append(joined, m)
	}
	return leave, nil
}

// nextTag returns a tag that was not used in this run, in the half of the tags that Linux leaves to user programs.
func (w *wire) nextTag() uint32 {
	w.tag++
	return w.tag | 1<<31
}

func (w *wire) send(frame []byte) error {
	n, err := w.port.Send([]link.TxFrame{{Header: frame}})
	if err != nil {
		return fmt.Errorf("conformance: %s: %w", w.port.Name(), err)
	}
	if n == 0 {
		return fmt.Errorf("conformance: %s: a frame of %d bytes was not taken", w.port.Name(), len(frame))
	}
	return nil
}

// collect hands every AoE answer that arrives to take, until take says that it has seen enough or limit has passed. The frame
// is valid during the call only.
func (w *wire) collect(ctx context.Context, limit time.Duration, take func(frame []byte) bool) error {
	end := time.Now().Add(limit)
	for {
		n, err := w.port.Receive(w.rx)
		if err != nil {
			return fmt.Errorf("conformance: %s: %w", w.port.Name(), err)
		}
		enough := false
		for i := range w.rx[:n] {
			f := w.rx[i].Data
			if len(f) >= 24 && binary.BigEndian.Uint16(f[12:]) == aoe.EtherType && f[14]&8 != 0 {
				enough = take(f) || enough
			}
		}
		left := time.Until(end)
		if enough || n == 0 && left <= 0 {
			return nil
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		if n == 0 {
			if _, err := w.poller.Wait(min(left, 20*time.Millisecond).Nanoseconds()); err != nil {
				return fmt.Errorf("conformance: %s: %w", w.port.Name(), err)
			}
		}
	}
}

// ask sends a request and returns a copy of its answer: the first one with its command and tag that matches. The
// request is sent again, under the same tag, until the time-out. Whatever else arrives is shown to others, if not nil.
func (w *wire) ask(ctx context.Context, req []byte, matches func([]byte) bool, others func([]byte)) ([]byte, error) {
	var answer []byte
	for waited := time.Duration(0); answer == nil && waited < w.timeout; waited += w.resend {
		if err := w.send(req); err != nil {
			return nil, err
		}
		err := w.collect(ctx, w.resend, func(f []byte) bool {
			if answer == nil && isAnswer(req, f) && matches(f) {
				answer = append([]byte(nil), f...)
			} else if others != nil {
				others(f)
			}
			return answer != nil
		})
		if err != nil {
			return nil, err
		}
	}
	if answer == nil {
		return nil, errNoAnswer
	}
	return answer, nil
}

// isAnswer says whether f answers req, going by command and tag alone: what else is wrong with it is for the checks to find.
func isAnswer(req, f []byte) bool {
	return len(req) >= 24 && f[19] == req[19] && [4]byte(f[20:]) == [4]byte(req[20:])
}
