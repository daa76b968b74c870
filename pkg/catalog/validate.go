package catalog

import (
	"fmt"
	"net/url"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"
)

// InvalidError says which field of an activity or a product is wrong, and what
// is wanted. Nothing has changed when it is returned.
type InvalidError struct {
	Field   string // as the HTTP API and the tables name it: "per_order"
	Problem string // with the limits: "want 1 to 999999999"
}

// Error makes an InvalidError an error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// The limits of an activity and of a product.
const (
	MaxName       = 120            // characters
	MaxURL        = 1024           // characters
	MaxUnits      = 999_999_999    // of Total, PerOrder and PerUser; the scripts take nine digits
	MaxPriceCents = 9_000_000_000  // of one unit: the amount of MaxUnits of them still fits an int64
	MaxPayWindow  = 24 * time.Hour // and at least a second
)

var (
	idPattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`)
	currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)
)

const idProblem = "want 1 to 36 characters of a-z, 0-9 and inner hyphens"

func (a Activity) validate() error {
	switch {
	case !idPattern.MatchString(a.ID):
		return &InvalidError{"id", idProblem}
	case !validName(a.Name):
		return &InvalidError{"name", nameProblem}
	case !validTime(a.StartsAt):
		return &InvalidError{"starts_at", timeProblem}
	case !validTime(a.EndsAt):
		return &InvalidError{"ends_at", timeProblem}
	case !a.StartsAt.Before(a.EndsAt):
		return &InvalidError{"ends_at", "want a time after starts_at"}
	case a.PayWindow < time.Second || a.PayWindow > MaxPayWindow || a.PayWindow%time.Second != 0:
		return &InvalidError{"pay_window", "want whole seconds, 1 s to 24 h"}
	}
	return nil
}

func (p Product) validate() error {
	switch {
	case !idPattern.MatchString(p.ID):
		return &InvalidError{"id", idProblem}
	case !idPattern.MatchString(p.ActivityID):
		return &InvalidError{"activity_id", idProblem}
	case !validName(p.Name):
		return &InvalidError{"name", nameProblem}
	case !validURL(p.ImageURL):
		return &InvalidError{"image_url", fmt.Sprintf("want http or https with a host, at most %d ASCII characters, or nothing", MaxURL)}
	case p.Channel != "" && !idPattern.MatchString(p.Channel):
		return &InvalidError{"channel", idProblem + ", or nothing"}
	case p.PriceCents < 0 || p.PriceCents > MaxPriceCents:
		return &InvalidError{"price_cents", fmt.Sprintf("want 0 to %d", MaxPriceCents)}
	case !currencyPattern.MatchString(p.Currency):
		return &InvalidError{"currency", "want three capital letters (ISO 4217)"}
	case !validUnits(p.Total):
		return &InvalidError{"total", unitsProblem}
	case !validUnits(p.PerOrder):
		return &InvalidError{"per_order", unitsProblem}
	case !validUnits(p.PerUser):
		return &InvalidError{"per_user", unitsProblem}
	}
	return nil
}

const nameProblem = "want 1 to 120 characters without control characters"

func validName(name string) bool {
	if !utf8.ValidString(name) {
		return false
	}
	n := 0
	for _, c := range name {
		if unicode.IsControl(c) {
			return false
		}
		n++
	}
	return n >= 1 && n <= MaxName
}

const timeProblem = "want a time from 1970 to 9999 in whole milliseconds"

// validTime refuses what DATETIME(3) would round or could not hold.
func validTime(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1970 && year <= 9999 && t.Nanosecond()%int(time.Millisecond) == 0
}

func validURL(text string) bool {
	if text == "" {
		return true
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	u, err := url.Parse(text)
	return err == nil && len(text) <= MaxURL && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

const unitsProblem = "want 1 to 999999999"

func validUnits(n int64) bool { return n >= 1 && n <= MaxUnits }
