package events

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// FuzzLetter reads dead letters whose headers somebody else has written. A
// redrive brings none of them anywhere but to a topic of events of ours, as the
// record that it was, and what dies there once more is counted.
func FuzzLetter(f *testing.F) {
	f.Add("seckill.reservations", "3", "17", "0", "permanent", "", "2026-11-11T12:00:00Z", "x-trace", []byte("{}"))
	f.Add("seckill.deduct.dlq", "-1", "x", "9223372036854775807", "", "true", "never", HeaderGroup, []byte{0xff})
	f.Add("seckill.reservations", "3", "17", "2", strings.Repeat("why", 2000), "true", "", "", []byte("{}"))
	f.Add("seckill.deduct.dlq", "0", "0", "0", "", "", "", "", []byte("{}"))
	f.Add("other.reservations", "", "", "-1", "", "", "", "", []byte(nil))
	f.Add("seckill.payments", "1", "1", strings.Repeat("9", 5000), "", "", "0001-01-01T00:00:00Z", HeaderRedriveCount, []byte(`{"reservation_id":7}`))
	f.Fuzz(func(t *testing.T, topic, partitionID, offset, count, class, truncated, at, name string, value []byte) {
		cfg := ClientConfig{Prefix: "seckill"}
		m := kafka.Message{Key: []byte(topic), Value: value, Headers: []kafka.Header{
			header(name, class), header(HeaderOriginTopic, topic), header(HeaderOriginPartition, partitionID), header(HeaderOriginOffset, offset),
			header(HeaderRedriveCount, count), header(HeaderErrorClass, class), header(HeaderTruncated, truncated), header(HeaderFailedAt, at),
		}}
		p := partition{Consumer: &Consumer{topic: "seckill.reservations", group: "seckill.deduct", cfg: ConsumerConfig{Group: "deduct", Now: time.Now}}}
		size := 0
		for _, h := range p.ownHeaders(letter{msg: m, err: errors.New(class)}) {
			size += len(h.Key) + len(h.Value)
		}
		if size > 4<<10 { // what is left of a letter that is too large must not be too large itself
			t.Fatalf("%d bytes of our own headers", size)
		}
		l := cfg.letterOf("deduct", m)
		r, err := l.sentBack(cfg)
		if err != nil {
			if !errors.Is(err, ErrNoWayBack) {
				t.Fatal(err)
			}
			return
		}
		short, ours := strings.CutPrefix(r.topic, "seckill.")
		if !ours || !carriesEvents(Topic(short)) || truncated != "" || !bytes.Equal(r.value, value) || string(r.key) != topic {
			t.Fatalf("%+v goes back as %+v", l, r)
		}
		for _, h := range r.headers[:len(r.headers)-1] {
			if strings.HasPrefix(h.Key, "x-seckill-") {
				t.Fatalf("our own header %s goes back", h.Key)
			}
		}
		n, err := strconv.Atoi(string(r.headers[len(r.headers)-1].Value))
		if err != nil || n < 1 {
			t.Fatalf("the redrive is number %q", r.headers[len(r.headers)-1].Value)
		}
		own := p.ownHeaders(letter{msg: kafka.Message{Headers: r.headers}, err: errors.New(class)})
		if again := cfg.letterOf("deduct", kafka.Message{Headers: own}); n <= 1_000_000 && again.Redrives != n {
			t.Fatalf("redriven %d times, and dead again %d", n, again.Redrives)
		}
	})
}
