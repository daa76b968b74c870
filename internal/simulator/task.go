package simulator

import (
	"fmt"
	"iter"
	"time"
)

// task is something that a process does: a request, a batch, a background step.
// It runs as a coroutine, so that the scheduler can leave it alone between two
// effects for as long as it likes, or end it there for good.
type task struct {
	what  string
	of    *process
	job   func()
	after func() // called when it ends, however

	until  time.Time // its effects fail from here on; zero = never
	killed bool
	done   bool
	fault  any // what it has panicked with

	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
}

// tendTimeout is the default of stockworker.HealerConfig.Timeout.
const tendTimeout = time.Minute

// overdue reports whether a time-out has ended what the task is at.
func (t *task) overdue(now time.Time) bool { return !t.until.IsZero() && now.After(t.until) }

// dead is the panic that ends a task whose process is killed.
type dead struct{}

// newTask makes a coroutine that does one job after the other.
func newTask() *task {
	t := &task{}
	t.resume, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		for {
			t.once()
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return t
}

// once does the job and keeps what it panics with.
func (t *task) once() {
	defer func() {
		t.done = true
		if p := recover(); p != nil {
			if _, ok := p.(dead); !ok {
				t.fault = p
			}
		}
	}()
	t.job()
}

// start gives a job to a coroutine. It begins when it is resumed.
func (s *Simulator) start(of *process, what string, job func(), after func()) {
	var t *task
	if n := len(s.spare); n > 0 {
		t, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		t = newTask()
	}
	t.what, t.of, t.job, t.after = what, of, job, after
	t.killed, t.done, t.fault, t.until = false, false, nil, time.Time{}
	s.tasks = append(s.tasks, t)
	s.say("%s begins: %s", of.name, what)
	s.run(len(s.tasks) - 1)
}

// run lets a task go on until its next effect.
func (s *Simulator) run(i int) {
	t := s.tasks[i]
	s.current = t
	t.resume()
	s.current = nil
	if !t.done {
		return
	}
	s.tasks[i] = s.tasks[len(s.tasks)-1]
	s.tasks = s.tasks[:len(s.tasks)-1]
	if t.after != nil {
		t.after()
	}
	if t.fault != nil {
		s.violate(fmt.Sprintf("%s of %s panics: %v", t.what, t.of.name, t.fault))
	}
	t.job, t.after = nil, nil
	s.spare = append(s.spare, t)
}

// pause lets the others go on. It does not return when the process is killed
// meanwhile.
func (s *Simulator) pause() {
	t := s.current
	if t == nil {
		return // the world is quiet: everything goes straight through
	}
	if !t.yield(struct{}{}) || t.killed {
		panic(dead{})
	}
	s.current = t
}

// kill ends every task of a process where it stands.
func (s *Simulator) kill(p *process) {
	for i := len(s.tasks) - 1; i >= 0; i-- {
		if s.tasks[i].of == p {
			s.tasks[i].killed = true
			s.run(i)
		}
	}
}

// Close ends the coroutines.
func (s *Simulator) Close() {
	for _, t := range s.tasks {
		t.killed = true
	}
	for len(s.tasks) > 0 {
		s.run(0)
	}
	for _, t := range s.spare {
		t.stop()
	}
	s.spare = nil
}
