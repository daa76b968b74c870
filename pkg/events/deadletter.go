package events

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Headers that a dead letter has beside those of the record it was.
const (
	HeaderOriginTopic     = "x-seckill-origin-topic"
	HeaderOriginPartition = "x-seckill-origin-partition"
	HeaderOriginOffset    = "x-seckill-origin-offset"
	HeaderGroup           = "x-seckill-group"         // that could not handle it
	HeaderAttempt         = "x-seckill-attempt"       // calls of the handler that had it; 0 when it could not be decoded
	HeaderError           = "x-seckill-error"         // at most 1 KiB
	HeaderErrorClass      = "x-seckill-error-class"   // undecodable, permanent or a word of PermanentAs
	HeaderFailedAt        = "x-seckill-failed-at"     // RFC 3339
	HeaderRedriveCount    = "x-seckill-redrive-count" // how often it was sent back to its topic
	HeaderTruncated       = "x-seckill-truncated"     // only when key, value and headers were too large to keep
)

// letter is a record that no retry can cure.
type letter struct {
	msg      kafka.Message
	class    string
	err      error
	attempts int
}

// aloneFrom is the size in bytes from which a dead letter is published alone:
// with its headers it may be too large for the broker, and would take the others
// of the request with it.
const aloneFrom = 64 << 10

// bury publishes dead letters, small ones together, and returns when they are
// acknowledged. An error means that the ownership has ended before.
func (p *partition) bury(live, work context.Context, letters ...letter) error {
	if p.cfg.Refused != nil {
		for _, l := range letters {
			p.cfg.Refused(l.msg, l.err)
		}
		return nil
	}
	var small []record
	var alone []letter
	for _, l := range letters {
		if full := p.deadLetter(l); full.size() < aloneFrom {
			small = append(small, full)
		} else {
			alone = append(alone, l)
		}
	}
	err := p.buryRecords(live, work, small...)
	if isPermanent(err) {
		alone, err = letters, nil // the broker takes so little that each must be tried; once more is harmless
	}
	for i := 0; i < len(alone) && err == nil; i++ {
		err = p.buryAlone(live, work, alone[i])
	}
	if err != nil {
		return err
	}
	for _, l := range letters {
		p.metrics.deadLetters.WithLabelValues(l.class).Inc()
		p.metrics.messages.WithLabelValues("dead").Inc()
		reservation, trace := whose(l.msg)
		p.outages.log.Error("record put among the dead letters", "partition", p.id, "offset", l.msg.Offset, "class", l.class, "error", l.err,
			"reservation_id", reservation, "trace_id", trace)
	}
	return nil
}

// buryAlone publishes one dead letter, and when it is too large for the broker
// the headers alone: they still say where the record is, for as long as its topic
// keeps it.
func (p *partition) buryAlone(live, work context.Context, l letter) error {
	full := p.deadLetter(l)
	err := p.buryRecords(live, work, full)
	if isPermanent(err) {
		return p.buryRecords(live, work, record{topic: full.topic, time: full.time, headers: append(p.ownHeaders(l), header(HeaderTruncated, "true"))})
	}
	return err
}

func (p *partition) buryRecords(live, work context.Context, records ...record) error {
	return p.retry(live, "bury", p.id, func() error {
		ctx, cancel := context.WithTimeout(work, publishTimeout)
		defer cancel()
		return p.publisher.publish(ctx, records)
	})
}

// deadLetter keeps what the record was and adds what became of it.
func (p *partition) deadLetter(l letter) record {
	headers := slices.DeleteFunc(slices.Clone(l.msg.Headers), func(h kafka.Header) bool { return strings.HasPrefix(h.Key, "x-seckill-") })
	return record{
		topic: p.cfg.TopicName(DeadLetterTopic(p.cfg.Group)),
		key:   l.msg.Key, value: l.msg.Value, time: l.msg.Time,
		headers: append(headers, p.ownHeaders(l)...),
	}
}

func (p *partition) ownHeaders(l letter) []kafka.Header {
	redriven := 0
	for _, h := range l.msg.Headers {
		if h.Key == HeaderRedriveCount {
			redriven = redrives(string(h.Value))
		}
	}
	text := l.err.Error()
	text = strings.ToValidUTF8(text[:min(len(text), 1024)], "")
	return []kafka.Header{
		header(HeaderOriginTopic, p.topic),
		header(HeaderOriginPartition, strconv.Itoa(p.id)),
		header(HeaderOriginOffset, strconv.FormatInt(l.msg.Offset, 10)),
		header(HeaderGroup, p.group),
		header(HeaderAttempt, strconv.Itoa(l.attempts)),
		header(HeaderError, text),
		header(HeaderErrorClass, l.class),
		header(HeaderFailedAt, p.cfg.Now().UTC().Format(time.RFC3339Nano)),
		header(HeaderRedriveCount, strconv.Itoa(redriven)),
	}
}

// redrives reads the count of a header, 0 when it is none. Anybody may have
// written it: taken over as it is, a value as large as a record would make the
// stub too large as well, and the partition would stand still for ever.
func redrives(value string) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > 1_000_000 {
		return 0
	}
	return n
}

func header(key, value string) kafka.Header { return kafka.Header{Key: key, Value: []byte(value)} }
