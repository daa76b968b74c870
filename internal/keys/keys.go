// Package keys keeps who may call: API keys with a role, of which only a hash
// is stored. It does not know what a role allows.
package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// Role is what a key may do.
type Role string

// The roles of keys. Operator may do what Viewer may, and Admin what Operator
// may; Service is apart.
const (
	Service  Role = "service"  // a checkout back end: reserves for its users
	Viewer   Role = "viewer"   // sees everything, changes nothing
	Operator Role = "operator" // runs sales
	Admin    Role = "admin"    // and decides who may
)

// Roles lists the roles of keys.
func Roles() []Role { return []Role{Service, Viewer, Operator, Admin} }

// Key is one caller's key. The caller sends it as sk_<ID>_<secret>; the secret
// itself is not kept.
type Key struct {
	ID         string            // 1 to 32 characters, a-z 0-9 and hyphens; no underscore, which ends it
	Hash       [sha256.Size]byte // SHA-256 of the secret
	Role       Role
	Activities []string // of a Service: the activities it may act for, at most 20; none = all
	Note       string   // at most 120 characters
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero = never
	RevokedAt  time.Time // zero = not
	LastUsedAt time.Time // to the minute; zero = never
}

// The errors that say what is stored. Nothing has changed when one is
// returned.
var (
	ErrNotFound = errors.New("no such key")
	ErrExists   = errors.New("the ID is taken")
)

// InvalidError says which field of a key is wrong, and what is wanted.
type InvalidError struct{ Field, Problem string }

// Error makes an InvalidError an error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

var (
	keyPattern      = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	activityPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`)
)

const (
	maxActivities = 20
	maxNote       = 120
	secretBytes   = 32
)

// Validate reports what is wrong with a key that is to be made.
func (k Key) Validate() error {
	if !keyPattern.MatchString(k.ID) {
		return &InvalidError{"id", "want 1 to 32 characters of a-z, 0-9 and hyphens"}
	}
	switch k.Role {
	case Service, Viewer, Operator, Admin:
	default:
		return &InvalidError{"role", "want service, viewer, operator or admin"}
	}
	if len(k.Activities) > 0 && k.Role != Service {
		return &InvalidError{"activities", "only a service is bound to activities"}
	}
	if len(k.Activities) > maxActivities {
		return &InvalidError{"activities", "want at most 20"}
	}
	for _, a := range k.Activities {
		if !activityPattern.MatchString(a) {
			return &InvalidError{"activities", fmt.Sprintf("%.40q is not the ID of an activity", a)}
		}
	}
	if !utf8.ValidString(k.Note) || utf8.RuneCountInString(k.Note) > maxNote || strings.ContainsFunc(k.Note, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return &InvalidError{"note", "want at most 120 characters without control characters"}
	}
	return nil
}

// The statements.
const (
	columns   = "SELECT id, hash, role, activities, note, created_at, expires_at, revoked_at, last_used_at FROM api_keys"
	sqlInsert = "INSERT INTO api_keys (id, hash, role, activities, note, created_at, expires_at) VALUES (?, ?, ?, ?, ?, NOW(3), ?)"
	sqlOne    = columns + " WHERE id = ?"
	sqlAll    = columns + " ORDER BY id"
	sqlValid  = columns + " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > NOW(3))"
	sqlRevoke = "UPDATE api_keys SET revoked_at = NOW(3) WHERE id = ? AND revoked_at IS NULL"
	sqlUsed   = "UPDATE api_keys SET last_used_at = NOW(3) WHERE id IN (?)"
	sqlCount  = "SELECT COUNT(*) FROM api_keys WHERE role = 'admin'"
)

// Store keeps the keys in MySQL. It is safe for concurrent use.
type Store struct{ db *sql.DB }

// NewStore returns the store in db, which must come from mysql.Open and have
// the tables of mysql.Migrate.
func NewStore(db *sql.DB) *Store { return &Store{db: db} }

// Create makes a key, with an ID if k has none, and returns it with its whole
// text, which nothing can show again. Times of k other than ExpiresAt are
// ignored.
//
// Errors: [*InvalidError], [ErrExists]. After any other error it may have been
// made: list the keys.
func (s *Store) Create(ctx context.Context, k Key) (made Key, text string, err error) {
	if k.ID == "" {
		k.ID = strings.ToLower(rand.Text()[:10])
	}
	if err := k.Validate(); err != nil {
		return Key{}, "", err
	}
	raw := make([]byte, secretBytes)
	if _, err := rand.Read(raw); err != nil {
		return Key{}, "", fmt.Errorf("make a secret: %w", err)
	}
	secret := hex.EncodeToString(raw)
	k.Hash = sha256.Sum256([]byte(secret))
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		expires := sql.NullTime{Time: k.ExpiresAt.UTC().Truncate(time.Millisecond), Valid: !k.ExpiresAt.IsZero()}
		if _, err := tx.ExecContext(ctx, sqlInsert, k.ID, k.Hash[:], string(k.Role), strings.Join(k.Activities, ","), k.Note, expires); err != nil {
			return err
		}
		if made, err = one(ctx, tx, k.ID); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "CreateKey", Entity: "key/" + k.ID, After: made.shown()})
	})
	if mysql.IsDuplicate(err) {
		err = ErrExists
	}
	if err != nil {
		return Key{}, "", fmt.Errorf("create key %s: %w", k.ID, err)
	}
	return made, "sk_" + k.ID + "_" + secret, nil
}

// Bootstrap makes the first admin key, called "admin", unless there is an
// admin key already: then text is empty. Of several callers at once one makes
// it.
func (s *Store) Bootstrap(ctx context.Context) (text string, err error) {
	var n int64
	if err := s.db.QueryRowContext(ctx, sqlCount).Scan(&n); err != nil || n > 0 {
		return "", err
	}
	_, text, err = s.Create(ctx, Key{ID: "admin", Role: Admin, Note: "made by seckill init"})
	if errors.Is(err, ErrExists) {
		return "", nil
	}
	return text, err
}

// List returns all keys, ordered by ID.
func (s *Store) List(ctx context.Context) ([]Key, error) { return s.read(ctx, sqlAll) }

// Valid returns the keys that may be used now, by MySQL's clock.
func (s *Store) Valid(ctx context.Context) ([]Key, error) { return s.read(ctx, sqlValid) }

// Revoke makes a key useless for good and returns it. Repeating it is
// harmless. ErrNotFound for an unknown one.
func (s *Store) Revoke(ctx context.Context, id string) (k Key, err error) {
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		before, err := one(ctx, tx, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, sqlRevoke, id); err != nil {
			return err
		}
		if k, err = one(ctx, tx, id); err != nil || !before.RevokedAt.IsZero() {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "RevokeKey", Entity: "key/" + id, Before: before.shown(), After: k.shown()})
	})
	if err != nil {
		return Key{}, fmt.Errorf("revoke key %.40q: %w", id, err)
	}
	return k, nil
}

// Used writes down that keys were used now; any number of IDs up to 500.
func (s *Store) Used(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	args := make([]any, 0, len(ids))
	for _, id := range ids[:min(len(ids), maxUsed)] {
		args = append(args, id)
	}
	if _, err := s.db.ExecContext(ctx, mysql.In(sqlUsed, len(args)), args...); err != nil {
		return fmt.Errorf("write down that %d keys were used: %w", len(args), err)
	}
	return nil
}

const maxUsed = 500

// shown is what the audit trail keeps of a key.
func (k Key) shown() any {
	return map[string]any{"role": k.Role, "activities": k.Activities, "note": k.Note, "expires_at": k.ExpiresAt, "revoked_at": k.RevokedAt}
}

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func one(ctx context.Context, q queryer, id string) (Key, error) {
	found, err := scan(ctx, q, sqlOne, id)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Key{}, err
	}
	return found[0], nil
}

func (s *Store) read(ctx context.Context, query string) ([]Key, error) {
	found, err := scan(ctx, s.db, query)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	return found, nil
}

func scan(ctx context.Context, q queryer, query string, args ...any) (out []Key, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var k Key
		var hash []byte
		var activities string
		var expires, revoked, used sql.NullTime
		if err := rows.Scan(&k.ID, &hash, &k.Role, &activities, &k.Note, &k.CreatedAt, &expires, &revoked, &used); err != nil {
			return nil, err
		}
		if copy(k.Hash[:], hash) != sha256.Size {
			return nil, fmt.Errorf("key %s: its hash has %d bytes", k.ID, len(hash))
		}
		if activities != "" {
			k.Activities = strings.Split(activities, ",")
		}
		k.ExpiresAt, k.RevokedAt, k.LastUsedAt = expires.Time, revoked.Time, used.Time
		out = append(out, k)
	}
	return out, rows.Err()
}
