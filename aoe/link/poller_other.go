//go:build !linux

package link

// sleeper waits on a channel: no port has descriptors here.
type sleeper struct {
	channelSleeper
	fds []int
}

func (s *sleeper) open(bool, bool) error {
	s.channelSleeper.open()
	return nil
}

func (s *sleeper) watches() bool { return false }

func (s *sleeper) sleep(timeoutNs int64, _ []*Source) (bool, error) {
	s.channelSleeper.sleep(timeoutNs)
	return false, nil
}

func (s *sleeper) close() {}
