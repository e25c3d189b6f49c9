package main

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// window runs functions concurrently, a bounded number at a time, until one fails.
type window struct {
	group *errgroup.Group
	ctx   context.Context
}

func newWindow(ctx context.Context, depth int) *window {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(depth)
	return &window{group, ctx}
}

// run starts work as soon as there is room; false if something has failed.
func (w *window) run(work func(ctx context.Context) error) bool {
	w.group.Go(func() error { return work(w.ctx) })
	return w.ctx.Err() == nil
}

func (w *window) wait() error { return w.group.Wait() }

// buffers are reused between chunks.
type buffers struct{ pool sync.Pool }

func newBuffers(bytes int64) *buffers {
	return &buffers{sync.Pool{New: func() any { b := make([]byte, bytes); return &b }}}
}

// eachChunk cuts a range into chunks and works on depth of them at a time, in no
// order. The buffer holds as many bytes as the chunk has.
func eachChunk(ctx context.Context, from, bytes, chunk int64, depth int, work func(ctx context.Context, off int64, p []byte) error) error {
	w := newWindow(ctx, depth)
	free := newBuffers(chunk)
	for off := from; off < from+bytes; off += chunk {
		n := min(chunk, from+bytes-off)
		if !w.run(func(ctx context.Context) error {
			p := free.pool.Get().(*[]byte)
			err := work(ctx, off, (*p)[:n])
			if err == nil { // after a time-out it may still be read by a frame
				free.pool.Put(p)
			}
			return err
		}) {
			break
		}
	}
	return w.wait()
}

// orderedChunks gets the chunks of a range, depth of them ahead, and uses them in
// order.
func orderedChunks(ctx context.Context, from, bytes, chunk int64, depth int,
	get func(ctx context.Context, off, n int64) ([]byte, error), use func(p []byte) error) error {
	type got struct {
		p   []byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var ahead []chan got
	next := from
	for next < from+bytes || len(ahead) > 0 {
		for len(ahead) < depth && next < from+bytes {
			off, n := next, min(chunk, from+bytes-next)
			ch := make(chan got, 1)
			ahead = append(ahead, ch)
			running.Add(1)
			go func() {
				defer running.Done()
				p, err := get(ctx, off, n)
				ch <- got{p, err}
			}()
			next += n
		}
		g := <-ahead[0]
		ahead = ahead[1:]
		if g.err != nil {
			return g.err
		}
		if err := use(g.p); err != nil {
			return err
		}
	}
	return nil
}
