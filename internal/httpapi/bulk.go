package httpapi

import (
	"context"
	"net/http"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// BulkOperator brings in what both providers hold.
type BulkOperator interface {
	StartBulk(ctx context.Context, o operator.BulkOrder) (run *store.BulkRun, begun bool, err error)
	Bulk(ctx context.Context, id string) (*store.BulkRun, error)
	Bulks(ctx context.Context, limit int) ([]store.BulkRun, error)
	BulkFailures(ctx context.Context, id string, after account.Entity, limit int) ([]store.BulkFailure, error)
	PauseBulk(ctx context.Context, id string, paused bool) (*store.BulkRun, error)
	CancelBulk(ctx context.Context, id string) (*store.BulkRun, error)
}

type bulkBody struct {
	DryRun    bool     `json:"dryRun"`
	IDs       []string `json:"ids"`
	Since     string   `json:"since"`
	Alongside bool     `json:"alongside"`
}

// startBulk answers POST /api/sync/bulk.
func (a *API) startBulk(in *asked) error {
	var body bulkBody
	if err := decode(in.body, &body, true, true); err != nil {
		return err
	}
	since, err := timeOf("since", body.Since)
	if err != nil {
		return err
	}
	run, begun, err := a.o.Operator.StartBulk(in.Context(), operator.BulkOrder{DryRun: body.DryRun, IDs: body.IDs, Since: since, Alongside: body.Alongside, Caller: in.caller.Name()})
	if err != nil {
		return err
	}
	if !begun {
		return &selfservice.Refusal{Kind: selfservice.Conflict, Code: "bulk_under_way", Detail: run.ID + " has not ended; alongside begins another beside it."}
	}
	in.w.Header().Set("Location", "/api/sync/bulk/"+run.ID)
	WriteJSON(in.w, http.StatusAccepted, run)
	return nil
}

// listBulks answers GET /api/sync/bulk.
func (a *API) listBulks(in *asked) error {
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	list, err := a.o.Operator.Bulks(in.Context(), limit)
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, map[string]any{"runs": list})
	return nil
}

// showBulk answers GET /api/sync/bulk/{id}.
func (a *API) showBulk(in *asked) error {
	return in.bulk(a.o.Operator.Bulk(in.Context(), in.id()))
}

// pauseBulk answers POST /api/sync/bulk/{id}/pause.
func (a *API) pauseBulk(in *asked) error {
	return in.bulk(a.o.Operator.PauseBulk(in.Context(), in.id(), true))
}

// resumeBulk answers POST /api/sync/bulk/{id}/resume.
func (a *API) resumeBulk(in *asked) error {
	return in.bulk(a.o.Operator.PauseBulk(in.Context(), in.id(), false))
}

// cancelBulk answers POST /api/sync/bulk/{id}/cancel.
func (a *API) cancelBulk(in *asked) error {
	return in.bulk(a.o.Operator.CancelBulk(in.Context(), in.id()))
}

// bulk answers how far a bulk sync is.
func (in *asked) bulk(run *store.BulkRun, err error) error {
	if err != nil {
		return err
	}
	if run == nil {
		return notFound("bulk_not_found", "There is no such bulk sync.")
	}
	WriteJSON(in.w, http.StatusOK, run)
	return nil
}

// listBulkFailures answers GET /api/sync/bulk/{id}/failures.
func (a *API) listBulkFailures(in *asked) error {
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	list, err := a.o.Operator.BulkFailures(in.Context(), in.id(), account.Entity(in.URL.Query().Get("after")), limit)
	if err != nil {
		return err
	}
	page := map[string]any{"failures": list}
	if len(list) == limit {
		page["next"] = list[len(list)-1].Entity
	}
	WriteJSON(in.w, http.StatusOK, page)
	return nil
}
