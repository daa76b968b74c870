package embedded

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/server" // v1.7.0: later ones compile a second JSON library, 24 s of CPU of a first "go run"
	_ "modernc.org/sqlite"                    // the store; a pure Go SQLite

	"github.com/leadingpeers/seckill/internal/embedded/dialect"
	"github.com/leadingpeers/seckill/internal/mysql/migrations"
)

// idleLimit is how long a transaction may wait for its client's next statement
// before its connection is closed: a client that is stuck must not keep the
// only writer's lock from all others.
const idleLimit = 30 * time.Second

// lockWait is how long a statement waits for the writer's lock, unless its
// session says otherwise, before it fails with MySQL's error 1205.
const lockWait = 10 * time.Second

// utf8mb4 is the number of MySQL's character set, as it stands on the wire.
const utf8mb4 = 45

// MySQL is a stand-in for a MySQL server with one schema: the project's
// tables, in a SQLite file.
type MySQL struct {
	listener net.Listener
	store    *store
	lock     io.Closer
	open     sync.WaitGroup // connections

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// StartMySQL starts a MySQL that keeps its tables in the SQLite file at path,
// which is made if it is missing, and continues what is there. Tables are
// brought up to date from the project's own migrations. What it has committed
// survives a kill of the process. It runs until Close, whatever becomes of ctx.
func StartMySQL(ctx context.Context, path string) (*MySQL, error) {
	return startMySQL(ctx, path, idleLimit)
}

func startMySQL(ctx context.Context, path string, idle time.Duration) (*MySQL, error) {
	lock, err := claim(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("start MySQL stand-in: %w", err)
	}
	st, err := openStore(ctx, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start MySQL stand-in in %s: %w", path, err), lock.Close())
	}
	st.idle = idle
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start MySQL stand-in: %w", err), st.db.Close(), lock.Close())
	}
	m := &MySQL{listener: listener, store: st, lock: lock, conns: make(map[net.Conn]struct{})}
	m.open.Go(func() { m.accept(context.WithoutCancel(ctx)) })
	return m, nil
}

// DSN names the server and its schema as go-sql-driver wants it. It must be
// opened with interpolateParams=true, as mysql.Open does.
func (m *MySQL) DSN() string { return "root@tcp(" + m.listener.Addr().String() + ")/seckill" }

// Close ends all connections, which undoes their transactions, and closes the
// file. Repeating is harmless.
func (m *MySQL) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	errs := []error{m.listener.Close()}
	for conn := range m.conns {
		_ = conn.Close() // its goroutine sees that it is gone
	}
	m.mu.Unlock()
	m.open.Wait()
	return errors.Join(append(errs, m.store.db.Close(), m.lock.Close())...)
}

// accept serves connections until the listener is closed.
func (m *MySQL) accept(ctx context.Context) {
	wire := server.NewServer("8.4.0-seckill-stand-in", utf8mb4, gomysql.AUTH_NATIVE_PASSWORD, nil, nil)
	for {
		conn, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			_ = conn.Close()
			return
		}
		m.conns[conn] = struct{}{}
		m.mu.Unlock()
		m.open.Go(func() {
			m.serve(ctx, wire, conn)
			m.mu.Lock()
			delete(m.conns, conn)
			m.mu.Unlock()
		})
	}
}

// serve answers one client until it leaves.
func (m *MySQL) serve(ctx context.Context, wire *server.Server, conn net.Conn) {
	buffered := &bufferedConn{Conn: conn, out: bufio.NewWriterSize(conn, 32<<10)}
	defer func() { _ = conn.Close() }()
	users := server.NewInMemoryProvider()
	users.AddUser("root", "")
	s := &session{store: m.store, lockWait: lockWait}
	s.hangUp = func() { _ = conn.Close() }
	defer s.end(ctx)
	run := func(text string) (*gomysql.Result, error) { return s.run(ctx, text) }
	client, err := server.NewCustomizedConn(buffered, wire, users, handler{run})
	if err != nil {
		return
	}
	for !s.broken && client.HandleCommand() == nil {
	}
	_ = buffered.out.Flush()
}

// handler is what the wire asks. Statements come as text only.
type handler struct {
	run func(text string) (*gomysql.Result, error)
}

var errPrepared = gomysql.NewError(gomysql.ER_NOT_SUPPORTED_YET, "the embedded stand-in takes statements as text: set interpolateParams=true")

// UseDB accepts any schema: there is one.
func (h handler) UseDB(string) error { return nil }

// HandleQuery runs a statement.
func (h handler) HandleQuery(text string) (*gomysql.Result, error) { return h.run(text) }

// HandleFieldList is refused.
func (h handler) HandleFieldList(string, string) ([]*gomysql.Field, error) { return nil, errPrepared }

// HandleStmtPrepare is refused.
func (h handler) HandleStmtPrepare(string) (params, columns int, context any, err error) {
	return 0, 0, nil, errPrepared
}

// HandleStmtExecute is refused.
func (h handler) HandleStmtExecute(any, string, []any) (*gomysql.Result, error) {
	return nil, errPrepared
}

// HandleStmtClose has nothing to close.
func (h handler) HandleStmtClose(any) error { return nil }

// HandleOtherCommand is refused.
func (h handler) HandleOtherCommand(byte, []byte) error { return errPrepared }

// bufferedConn gathers what is written until the next read: the wire writes
// each row by itself, and waits for its client only by reading.
type bufferedConn struct {
	net.Conn
	out *bufio.Writer
}

// Write keeps p for the next read.
func (c *bufferedConn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Read sends what is kept, then reads.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if err := c.out.Flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// store is the SQLite file behind the wire.
type store struct {
	db      *sql.DB
	dialect *dialect.Dialect
	writer  chan struct{} // holds one token while somebody writes; Go wakes those who wait in order
	idle    time.Duration
}

func openStore(ctx context.Context, path string) (*store, error) {
	d, err := dialect.New(migrations.Files)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", sqliteDSN(path, url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "foreign_keys(1)"},
		"_dqs":    {"0"},
	}))
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(16)
	if err := migrate(ctx, db, d.Migrations()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db: db, dialect: d, writer: make(chan struct{}, 1)}, nil
}

// migrate runs the migrations that the file has not seen, in one transaction.
func migrate(ctx context.Context, db *sql.DB, all []dialect.Migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int64
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	for _, m := range all {
		if m.Version <= version {
			continue
		}
		for _, statement := range append(m.Statements, fmt.Sprintf("PRAGMA user_version = %d", m.Version)) {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("migration %d: %w: %s", m.Version, err, statement)
			}
		}
	}
	return tx.Commit()
}
