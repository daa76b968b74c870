package catalogue

import (
	"sync"
	"sync/atomic"

	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// maxPages is how many different answers are kept: callers choose the page.
const maxPages = 256

// pages keeps answers that are alike for everybody while the view is the same.
type pages struct{ current atomic.Pointer[pagesOfView] }

type pagesOfView struct {
	view  *catalog.View
	count atomic.Int64
	texts sync.Map // of *web.Text, by key
}

// of returns the answer called key that make puts together from the view. Only
// the current view's are kept; an error is not.
func (p *pages) of(view *catalog.View, key string, make func() (any, error)) (*web.Text, error) {
	set := p.current.Load()
	if set == nil || set.view != view {
		set = &pagesOfView{view: view}
		p.current.Store(set) // of two that race one is lost, and made again
	}
	if text, ok := set.texts.Load(key); ok {
		return text.(*web.Text), nil
	}
	body, err := make()
	if err != nil {
		return nil, err
	}
	text, err := web.Tag(body)
	if err == nil && set.count.Add(1) <= maxPages {
		set.texts.Store(key, text)
	}
	return text, err
}
