package membership

import "fmt"

// groupLog is Raft's logger: warnings and errors become events, its panics panic.
type groupLog struct{ lines []string }

const maxEvents = 64

func (l *groupLog) take() []string {
	out := l.lines
	l.lines = nil
	return out
}

func (l *groupLog) add(s string) {
	if len(l.lines) < maxEvents {
		l.lines = append(l.lines, s)
	}
}

func (l *groupLog) Debug(...any)                {}
func (l *groupLog) Debugf(string, ...any)       {}
func (l *groupLog) Info(...any)                 {}
func (l *groupLog) Infof(string, ...any)        {}
func (l *groupLog) Warning(v ...any)            { l.add("raft: " + fmt.Sprint(v...)) }
func (l *groupLog) Warningf(f string, v ...any) { l.add("raft: " + fmt.Sprintf(f, v...)) }
func (l *groupLog) Error(v ...any)              { l.add("raft: " + fmt.Sprint(v...)) }
func (l *groupLog) Errorf(f string, v ...any)   { l.add("raft: " + fmt.Sprintf(f, v...)) }
func (l *groupLog) Fatal(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (l *groupLog) Fatalf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
func (l *groupLog) Panic(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (l *groupLog) Panicf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
