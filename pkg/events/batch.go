package events

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go"
)

// The places of a record batch's head, and its length
// (https://kafka.apache.org/documentation/#recordbatch).
const (
	batchLengthAt = 8
	batchEpochAt  = 12
	batchMagicAt  = 16
	batchCRCAt    = 17
	batchAttrsAt  = 21
	batchLastAt   = 23
	batchFirstMS  = 27
	batchMaxMS    = 35
	batchWriterAt = 43 // producer's ID, epoch and sequence: -1, we are not idempotent writers
	batchCountAt  = 57
	batchHead     = 61
)

// encoder writes record batches. We do it ourselves because kafka-go's way takes
// a reader for each key and value, and its zstd keeps 16 MB of history for
// each encoder, most of a gateway's memory, for batches of some 100 kB. It is
// safe for concurrent use.
type encoder struct {
	compression kafka.Compression
	zstd        *zstd.Encoder
	castagnoli  *crc32.Table
}

// zstdWindow is how far back zstd looks: further than most batches are long.
const zstdWindow = 256 << 10

func newEncoder(compression kafka.Compression, workers int) (*encoder, error) {
	// Kafka has a checksum of the batch, so the frame needs none.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(workers), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	return &encoder{compression: compression, zstd: z, castagnoli: crc32.MakeTable(crc32.Castagnoli)}, nil
}

// scratch is memory of one request, used again and again.
type scratch struct{ plain, out []byte }

// clear makes s empty; memory that one large request has needed goes.
func (s *scratch) clear() {
	s.plain, s.out = s.plain[:0], s.out[:0]
	if cap(s.plain)+cap(s.out) > maxRequestBytes {
		s.plain, s.out = nil, nil
	}
}

// batch appends items to s.out as a request has them: the length of a record
// batch, and the batch. What has no time of its own has now.
func (e *encoder) batch(s *scratch, items []*item, now time.Time) error {
	compression := max(e.compression, 0)
	if len(items) < compressFrom {
		compression = 0
	}
	start := len(s.out) + 4
	s.out = append(s.out, make([]byte, 4+batchHead)...)
	first, last := int64(0), int64(0)
	plain := s.plain[:0]
	if compression == 0 {
		plain = s.out
	}
	for i, it := range items {
		at := now.UnixMilli()
		if !it.record.time.IsZero() {
			at = it.record.time.UnixMilli()
		}
		if i == 0 {
			first, last = at, at
		}
		last = max(last, at)
		plain = it.record.append(plain, int64(i), at-first)
	}
	var err error
	if compression == 0 {
		s.out = plain
	} else {
		s.plain = plain
		if s.out, err = e.compress(s.out, plain, compression); err != nil {
			return fmt.Errorf("compress %d records: %w", len(items), err)
		}
	}
	b := s.out[start:]
	binary.BigEndian.PutUint32(s.out[start-4:], uint32(len(b)))
	binary.BigEndian.PutUint32(b[batchLengthAt:], uint32(len(b)-batchEpochAt))
	binary.BigEndian.PutUint32(b[batchEpochAt:], ^uint32(0))
	b[batchMagicAt] = 2
	binary.BigEndian.PutUint16(b[batchAttrsAt:], uint16(compression))
	binary.BigEndian.PutUint32(b[batchLastAt:], uint32(len(items)-1))
	binary.BigEndian.PutUint64(b[batchFirstMS:], uint64(first))
	binary.BigEndian.PutUint64(b[batchMaxMS:], uint64(last))
	for i := batchWriterAt; i < batchCountAt; i++ {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint32(b[batchCountAt:], uint32(len(items)))
	binary.BigEndian.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttrsAt:], e.castagnoli))
	return nil
}

// compress appends what is in plain.
func (e *encoder) compress(out, plain []byte, compression kafka.Compression) ([]byte, error) {
	if compression == kafka.Zstd {
		return e.zstd.EncodeAll(plain, out), nil
	}
	codec := compression.Codec()
	if codec == nil {
		return out, fmt.Errorf("there is no compression %d", compression)
	}
	buffer := bytes.NewBuffer(out)
	w := codec.NewWriter(buffer)
	if _, err := w.Write(plain); err != nil {
		return out, err
	}
	err := w.Close()
	return buffer.Bytes(), err
}

// append appends r as the record with this offset and this time in its batch.
func (r record) append(b []byte, offset, ms int64) []byte {
	length := 1 + varint(ms) + varint(offset) + sizeOf(r.key, r.key == nil) + sizeOf(r.value, r.value == nil) + varint(int64(len(r.headers)))
	for _, h := range r.headers {
		length += sizeOf(h.Key, false) + sizeOf(h.Value, h.Value == nil)
	}
	b = binary.AppendVarint(b, int64(length))
	b = append(b, 0) // attributes: there are none
	b = binary.AppendVarint(b, ms)
	b = binary.AppendVarint(b, offset)
	b = appendSized(b, r.key, r.key == nil)
	b = appendSized(b, r.value, r.value == nil)
	b = binary.AppendVarint(b, int64(len(r.headers)))
	for _, h := range r.headers {
		b = appendSized(b, h.Key, false)
		b = appendSized(b, h.Value, h.Value == nil)
	}
	return b
}

// appendSized appends a text behind its length; null has the length -1.
func appendSized[T string | []byte](b []byte, text T, null bool) []byte {
	if null {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(text))), text...)
}

// sizeOf is how many bytes appendSized appends.
func sizeOf[T string | []byte](text T, null bool) int {
	if null {
		return varint(-1)
	}
	return varint(int64(len(text))) + len(text)
}

// varint is how many bytes v takes in zigzag.
func varint(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
