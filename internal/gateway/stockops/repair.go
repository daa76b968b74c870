package stockops

import (
	"net/http"

	"github.com/leadingpeers/seckill/internal/gateway/catalogue"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
)

// reopen lets a product sell again that the audit has stopped. What Redis holds
// of it may be what was wrong, so Redis forgets it and gets it from the ledger.
// For a product that is open it does no more than load what is not there.
func (s *StockOps) reopen(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := s.begin(w, r)
	defer cancel()
	p, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	stopped, err := s.cfg.Ledger.Reopen(ctx, p.ID)
	if err != nil {
		return fault(err)
	}
	if stopped {
		if err := s.cfg.Cache.Flush(ctx, p.ID, true); err != nil {
			return problem.Fault(problem.CacheUnavailable, err)
		}
	}
	if p, err = s.cfg.Catalog.Product(ctx, p.ID); err != nil { // it is open now
		return fault(err)
	}
	a, err := s.cfg.Catalog.Activity(ctx, p.ActivityID)
	if err != nil {
		return fault(err)
	}
	if _, err := s.cfg.Load(ctx, catalogue.Terms(a, p)); err != nil {
		return problem.Fault(problem.PreloadFailed, err)
	}
	return s.show(ctx, w, p.ID, false)
}

// heal tells Redis again what the ledger has of a product.
func (s *StockOps) heal(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := s.begin(w, r)
	defer cancel()
	p, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	if err := s.cfg.Heal(ctx, p.ID); err != nil {
		return problem.Fault(problem.PreloadFailed, err)
	}
	return s.show(ctx, w, p.ID, false)
}
