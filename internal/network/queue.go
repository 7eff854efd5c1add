package network

import (
	"sync"

	"wherry.dev/wherry/internal/network/link"
)

// job is slow work that nobody waits for: the end of a pair to delete, or something else to run, and what comes afterwards.
type job struct {
	end  string
	run  func() error
	then func()
}

// queue does jobs in order, one goroutine for all; ends that stand behind each other are deleted together, which costs the kernel no more
// than one.
type queue struct {
	conn *link.Conn
	log  func(error)
	done chan struct{}

	mu     sync.Mutex // guards what follows
	wake   *sync.Cond
	jobs   []job
	busy   bool
	closed bool
	group  int
}

func newQueue(conn *link.Conn, log func(error)) *queue {
	q := &queue{conn: conn, log: log, done: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.work()
	return q
}

func (q *queue) add(jobs ...job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, jobs...)
	q.wake.Broadcast()
}

// drain waits until everything that was added is done.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy || len(q.jobs) > 0 {
		q.wake.Wait()
	}
}

// flush waits until what was added before is done.
func (q *queue) flush() {
	done := make(chan struct{})
	q.add(job{then: func() { close(done) }})
	select {
	case <-done:
	case <-q.done:
	}
}

// close finishes what was added and ends the goroutine.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Broadcast()
	q.mu.Unlock()
	<-q.done
	q.report(q.conn.Close())
}

func (q *queue) work() {
	defer close(q.done)
	for {
		batch := q.next()
		if batch == nil {
			return
		}
		q.do(batch)
		q.mu.Lock()
		q.busy = false
		q.wake.Broadcast()
		q.mu.Unlock()
	}
}

// next waits for jobs; nil when the queue is closed and empty. A batch is either of ends only or one other job.
func (q *queue) next() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 {
		if q.closed {
			return nil
		}
		q.wake.Wait()
	}
	n := 1
	if q.jobs[0].run == nil {
		for n < len(q.jobs) && n < 512 && q.jobs[n].run == nil {
			n++
		}
	}
	batch := q.jobs[:n:n]
	q.jobs = q.jobs[n:]
	q.busy = true
	q.group = 0x77000000 | (q.group+1)&0xffff
	return batch
}

func (q *queue) do(batch []job) {
	if batch[0].run != nil {
		q.report(batch[0].run())
	} else {
		var ends []string
		for _, j := range batch {
			if j.end != "" {
				ends = append(ends, j.end)
			}
		}
		q.report(link.Delete(q.conn, q.group, ends...))
	}
	for _, j := range batch {
		if j.then != nil {
			j.then()
		}
	}
}

func (q *queue) report(err error) {
	if err != nil && q.log != nil {
		q.log(err)
	}
}
