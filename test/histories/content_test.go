package histories_test

import (
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/converter"

	"github.com/nepfy/clerk-stripe-sync/test/histories"
)

// What looks for strange things finds them, wherever they are.
func TestStrangeThingsAreFound(t *testing.T) {
	t.Parallel()
	payload := func(value any) *commonpb.Payload {
		p, err := converter.GetDefaultDataConverter().ToPayload(value)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	input := func(value any) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionStartedEventAttributes{
			WorkflowExecutionStartedEventAttributes: &historypb.WorkflowExecutionStartedEventAttributes{
				Identity: "1@host", Input: &commonpb.Payloads{Payloads: []*commonpb.Payload{payload(value)}},
			}}}
	}
	result := func(value any) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_ActivityTaskCompletedEventAttributes{
			ActivityTaskCompletedEventAttributes: &historypb.ActivityTaskCompletedEventAttributes{Result: &commonpb.Payloads{Payloads: []*commonpb.Payload{payload(value)}}}}}
	}
	failed := func(message, trace string) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{EventType: enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED, Attributes: &historypb.HistoryEvent_ActivityTaskFailedEventAttributes{
			ActivityTaskFailedEventAttributes: &historypb.ActivityTaskFailedEventAttributes{Failure: &failurepb.Failure{Message: "activity error",
				StackTrace: trace, Cause: &failurepb.Failure{Message: message}}}}}
	}
	search := func(name string, value any) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_UpsertWorkflowSearchAttributesEventAttributes{
			UpsertWorkflowSearchAttributesEventAttributes: &historypb.UpsertWorkflowSearchAttributesEventAttributes{
				SearchAttributes: &commonpb.SearchAttributes{IndexedFields: map[string]*commonpb.Payload{name: payload(value)}}}}}
	}
	signal := &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionSignaledEventAttributes{
		WorkflowExecutionSignaledEventAttributes: &historypb.WorkflowExecutionSignaledEventAttributes{SignalName: "Ada Lovelace"}}}
	for name, c := range map[string]struct {
		event *historypb.HistoryEvent
		found string // "" for nothing
	}{
		"an id":              {input(map[string]any{"clerkUserId": "user_2a", "looks": 3, "live": true}), ""},
		"a status and times": {result(map[string]any{"status": "past_due", "wakeAt": "2026-03-01T12:00:00.25Z"}), ""},
		"nothing":            {result(nil), ""},
		"a classified failure": {
			failed("stripe: read customer: resource_missing (permanent, HTTP 404, request req_1)", ""), "",
		},
		"a name":               {input(map[string]any{"clerkUserId": "Ada"}), "Ada"},
		"a name, deep":         {result(map[string]any{"a": []any{map[string]any{"b": "Ada"}}}), "Ada"},
		"an email":             {result("ada@example.com"), "ada@example.com"},
		"a provider's object":  {input(map[string]any{"object": "user_1"}), "object"},
		"a provider's field":   {input(map[string]any{"cancel_at": 12}), "cancel_at"},
		"bytes":                {result([]byte("Ada")), "binary/plain"},
		"a provider's text":    {failed("No such customer: 'Ada'", ""), "No such customer"},
		"a stack":              {failed("activity error", "main.go:1 Ada Lovelace"), "Ada Lovelace"},
		"a searched name":      {search("ClerkUserId", "Ada"), "Ada"},
		"a name in a signal":   {signal, "Ada Lovelace"},
		"a search by an email": {search("ada@example.com", "user_1"), "ada@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := histories.Strange(&historypb.History{Events: []*historypb.HistoryEvent{input(map[string]any{"clerkUserId": "user_1"}), c.event}})
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(found, "\n"); (c.found == "") != (len(found) == 0) || !strings.Contains(all, c.found) {
				t.Errorf("found %q, want %q", all, c.found)
			}
		})
	}
	if _, err := histories.Strange(&historypb.History{Events: []*historypb.HistoryEvent{signal}}); err == nil {
		t.Error("a history without a payload passes for one that was looked at")
	}
	anonymous := histories.Anonymous(&historypb.History{Events: []*historypb.HistoryEvent{input("user_1")}})
	if strings.Contains(anonymous.String(), "@") {
		t.Errorf("not anonymous: %s", anonymous)
	}
}
