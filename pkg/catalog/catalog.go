// Package catalog is what is on sale: [Activity], [Product] and the [Store]
// that keeps them in MySQL. It does not count units; package stock does.
package catalog

import "time"

// ActivityState says whether an activity sells.
type ActivityState string

// The states of an activity: draft → online → (paused ↔ online) → ended.
const (
	Draft  ActivityState = "draft"
	Online ActivityState = "online"
	Paused ActivityState = "paused"
	Ended  ActivityState = "ended"
)

// Activity is a sale with a window. While it is online neither its products
// nor their stock may be changed.
type Activity struct {
	ID        string // 1 to 36 characters, a-z 0-9 and inner hyphens; a UUIDv7 when the caller gives none
	Name      string // 1 to 120 characters
	State     ActivityState
	StartsAt  time.Time     // UTC, millisecond precision
	EndsAt    time.Time     // after StartsAt
	PayWindow time.Duration // how long a buyer may take to pay; whole seconds, 1 s to 24 h
	Version   int64         // counts the changes, from 1
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Product is an item of an activity, with its price, total and limits.
type Product struct {
	ID         string // 1 to 36 characters, a-z 0-9 and inner hyphens; unique over all activities; a UUIDv7 when the caller gives none
	ActivityID string
	Name       string // 1 to 120 characters
	ImageURL   string // at most 1024 characters, http or https, or empty
	Channel    string // the source channel its stock comes from, or empty
	PriceCents int64  // of one unit, 0 or more
	Currency   string // ISO 4217, three capital letters
	Total      int64  // units put on sale, 1 to 999,999,999
	PerOrder   int64  // most units in one order
	PerUser    int64  // most units for one buyer
	Available  int64  // units that the ledger has not sold
	Restocks   int64  // how often Total has changed
	SoldOut    bool   // the source channel has none left, or the product was stopped
	Version    int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
}
