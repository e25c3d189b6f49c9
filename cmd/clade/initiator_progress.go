package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressAfter is how long a transfer runs before it shows how far it is.
const progressAfter = 2 * time.Second

// progress shows how far a transfer is, on stderr, if it takes long.
type progress struct {
	mu      sync.Mutex
	w       io.Writer
	shown   bool // allowed to show
	total   int64
	title   string
	done    int64
	started time.Time
	bar     *progressbar.ProgressBar
}

func (o *initiatorOptions) newProgress(w io.Writer, title string, total int64) *progress {
	return &progress{w: w, shown: o.progress || o.isTerminal(w), total: total, title: title, started: time.Now()}
}

// add counts bytes that are done. Any goroutine may call it.
func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += int64(n)
	if !p.shown {
		return
	}
	if p.bar == nil {
		if time.Since(p.started) < progressAfter {
			return
		}
		p.bar = progressbar.NewOptions64(p.total, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(p.title),
			progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(true),
			progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24))
	}
	_ = p.bar.Set64(p.done) // a bar that cannot be drawn is no reason to stop
}

func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
