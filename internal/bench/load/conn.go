package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// answerTimeout is how long one answer may take.
const answerTimeout = 15 * time.Second

// conn is one kept connection of HTTP/1.1.
type conn struct {
	addr string
	net  net.Conn
	in   *bufio.Reader
	out  []byte
}

func (c *conn) dial(ctx context.Context) error {
	var d net.Dialer
	got, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return fmt.Errorf("load: connect to %s: %w", c.addr, err)
	}
	c.net, c.in = got, bufio.NewReaderSize(got, 4<<10)
	return nil
}

func (c *conn) close() {
	if c.net != nil {
		_ = c.net.Close()
		c.net = nil
	}
}

// ask sends request n and reads the status of its answer. A connection that
// the server has ended is made again for the next request.
func (c *conn) ask(ctx context.Context, s Spec, path string, n int64) (status int, err error) {
	if c.net == nil {
		if err := c.dial(ctx); err != nil {
			return 0, err
		}
	}
	c.out = appendRequest(c.out[:0], s, path, n)
	if err := c.net.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.net.Write(c.out); err != nil {
		c.close()
		return 0, err
	}
	status, keep, err := c.read()
	if err != nil || !keep {
		c.close()
	}
	return status, err
}

func appendRequest(b []byte, s Spec, path string, n int64) []byte {
	verb := "GET "
	if s.Reserve {
		verb = "POST "
	}
	b = append(append(append(b, verb...), path...), " HTTP/1.1\r\nHost: bench\r\n"...)
	b = append(b, s.Header...)
	if !s.Reserve {
		return append(b, "\r\n"...)
	}
	b = append(append(b, "Idempotency-Key: "...), s.Seed...)
	b = strconv.AppendInt(append(b, '-'), n, 10)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	const front, back = `{"user_id":"`, `","quantity":1}`
	user := strconv.AppendInt(nil, n, 10)
	b = strconv.AppendInt(b, int64(len(front)+len(s.Seed)+1+len(user)+len(back)), 10)
	b = append(append(append(b, "\r\n\r\n"...), front...), s.Seed...)
	return append(append(append(b, '-'), user...), back...)
}

var errNotHTTP = errors.New("the answer is not HTTP/1.1")

// read reads one answer and keeps its status alone. keep is false when the
// server will end the connection.
func (c *conn) read() (status int, keep bool, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	if len(line) < 12 || string(line[:8]) != "HTTP/1.1" {
		return 0, false, fmt.Errorf("%w: %.40q", errNotHTTP, line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, fmt.Errorf("%w: %.40q", errNotHTTP, line)
	}
	keep, length, chunked := true, int64(0), false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return status, false, err
		}
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if len(name) == 0 {
			break
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return status, false, fmt.Errorf("%w: %.40q", errNotHTTP, line)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			keep = !bytes.EqualFold(value, []byte("close"))
		}
	}
	if chunked {
		return status, keep, c.skipChunks()
	}
	_, err = c.in.Discard(int(length))
	return status, keep, err
}

func (c *conn) skipChunks() error {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return fmt.Errorf("%w: chunk %.40q", errNotHTTP, line)
		}
		if _, err := io.CopyN(io.Discard, c.in, size+2); err != nil { // and its \r\n
			return err
		}
		if size == 0 {
			return nil
		}
	}
}
