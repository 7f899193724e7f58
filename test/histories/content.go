// Package histories reads workflow histories and says what does not belong in them. What a
// history may hold is ids, statuses, times and numbers. Everything else is reported, whether or
// not it looks like somebody's: what is allowed is written down, what is not is not.
package histories

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	commonpb "go.temporal.io/api/common/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Strange lists what a history holds and may not: in its payloads, each of them decoded, and in
// everything around them. It answers an error for a history in which it finds no payload, since
// then it has looked at nothing.
func Strange(history *historypb.History) ([]string, error) {
	l := &looker{}
	for _, event := range history.GetEvents() {
		l.event = event
		l.message(event.ProtoReflect())
	}
	if l.payloads == 0 {
		return nil, fmt.Errorf("no payload among %d events", len(history.GetEvents()))
	}
	return l.found, nil
}

// Anonymous takes the name of the machine out of a history, which is no part of what was done.
func Anonymous(history *historypb.History) *historypb.History {
	anonymous, _ := proto.Clone(history).(*historypb.History) // a clone has the type of its original
	for _, event := range anonymous.GetEvents() {
		forget(event.ProtoReflect())
	}
	return anonymous
}

func forget(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case isIdentity(field):
			m.Set(field, protoreflect.ValueOfString("worker"))
		case field.Kind() == protoreflect.MessageKind && !field.IsList() && !field.IsMap():
			forget(value.Message())
		}
		return true
	})
}

// isIdentity tells whether a field names the process and the machine that did something.
func isIdentity(field protoreflect.FieldDescriptor) bool {
	return field.Name() == "identity" && field.Kind() == protoreflect.StringKind
}

type looker struct {
	event    *historypb.HistoryEvent
	payloads int
	found    []string
}

func (l *looker) report(what, value string) {
	l.found = append(l.found, fmt.Sprintf("event %d, %s: %s %q", l.event.GetEventId(), l.event.GetEventType(), what, value))
}

func (l *looker) message(m protoreflect.Message) {
	if payload, ok := m.Interface().(*commonpb.Payload); ok {
		l.payload(payload)
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case isIdentity(field): // the machine's; golden histories do without
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				l.plain("key of "+string(field.Name()), key.String())
				l.value(field.MapValue(), value)
				return true
			})
		case field.IsList():
			for i := range value.List().Len() {
				l.value(field, value.List().Get(i))
			}
		default:
			l.value(field, value)
		}
		return true
	})
}

func (l *looker) value(field protoreflect.FieldDescriptor, value protoreflect.Value) {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		l.message(value.Message())
	case protoreflect.StringKind:
		if field.Name() == "message" && field.ContainingMessage().Name() == "Failure" {
			l.failure(value.String())
			return
		}
		l.plain(string(field.Name()), value.String())
	case protoreflect.BytesKind:
		l.plain(string(field.Name()), string(value.Bytes()))
	default: // numbers, booleans and enumerations say nothing of anyone
	}
}

// What stands around payloads: names of types and queues, ids, versions.
var plainForm = regexp.MustCompile(`^[A-Za-z0-9_./:+-]*$`)

func (l *looker) plain(what, text string) {
	if !plainForm.MatchString(text) {
		l.report(what, text)
	}
}

// The text of a failure names provider, operation, code, class, status and request. The server's
// own text for a workflow task that a signal has overtaken is there too.
var failureForm = regexp.MustCompile(`^([a-z]+: [A-Za-z ]+: [A-Za-z0-9_.-]+ \((transient|throttled|operator|permanent)(, HTTP \d+)?(, request [A-Za-z0-9_-]+)?\)` +
	`|unexpected failure of type [*A-Za-z0-9_.]+|the attempt's time ran out|activity [A-Za-z-]+ timeout|activity error|UnhandledCommand)$`)

func (l *looker) failure(text string) {
	if !failureForm.MatchString(text) {
		l.report("failure", text)
	}
}

func (l *looker) payload(p *commonpb.Payload) {
	l.payloads++
	var raw json.RawMessage
	switch encoding := string(p.GetMetadata()[converter.MetadataEncoding]); encoding {
	case converter.MetadataEncodingNil:
		return
	case converter.MetadataEncodingJSON:
		if err := converter.GetDefaultDataConverter().FromPayload(p, &raw); err != nil {
			l.report("undecodable payload", err.Error())
			return
		}
	default:
		l.report("payload encoding", encoding)
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		l.report("undecodable payload", err.Error())
		return
	}
	l.decoded("payload", value)
}

func (l *looker) decoded(name string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, each := range value {
			// Ours are camelCase; both providers write snake_case, and "object" in each object.
			if !keyForm.MatchString(key) && !isClass(key) || key == "object" {
				l.report("key", key)
			}
			l.decoded(key, each)
		}
	case []any:
		for _, each := range value {
			l.decoded(name, each)
		}
	case string:
		if !idForm.MatchString(value) && !entityForm.MatchString(value) && !isClass(value) && !timeForm.MatchString(value) && !slices.Contains(words(), value) {
			l.report("value of "+name, value)
		}
	}
}

var (
	keyForm = regexp.MustCompile(`^[a-z][A-Za-z]*$`)
	idForm  = regexp.MustCompile(`^((user|cus|sub|sub_sched|prod|price|ch|py|op|evt|bulk)_[A-Za-z0-9]+|[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|\d+)$`)
	// An entity, or only its kind, where a list of them begins.
	entityForm = regexp.MustCompile(`^(user|customer|product|charge)/((user|cus|prod|ch|py)_[A-Za-z0-9]+)?$`)
	timeForm   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`)
)

// isClass tells whether a text is a class of differences.
func isClass(text string) bool { return account.Drift(text).Means() != "" }

// words are the statuses, outcomes and classes that a payload may hold.
func words() []string {
	return []string{
		string(account.StatusIncomplete), string(account.StatusIncompleteExpired), string(account.StatusTrialing), string(account.StatusActive),
		string(account.StatusPastDue), string(account.StatusUnpaid), string(account.StatusPaused), string(account.StatusCanceled),
		string(activities.OutcomeSynced), string(activities.OutcomeWaiting), string(activities.OutcomeMissing), string(activities.OutcomeDeleted),
		string(failure.Transient), string(failure.Throttled), string(failure.Operator), string(failure.Permanent),
		"linked", "kept", // what came of an undo
		string(store.OperationAccepted), string(store.OperationActing), string(store.OperationRecorded), string(store.OperationDone), string(store.OperationRefused),
		string(store.OperationFailed), string(store.OperationUndone), string(store.OperationSuperseded), string(store.OperationExpired),
		string(account.KindUser), string(account.KindCustomer), string(account.KindProduct),
		activities.ListProducts, activities.ListPrices, activities.ListCustomers, activities.ListSubscriptions,
		activities.BulkUsers, activities.BulkOnboarding, activities.BulkNamed, activities.BulkChangedUsers, activities.BulkChanges,
		"operator",         // who asks from the command line
		"AwaitWithTimeout", // what the SDK calls the timer of a caller's patience
		"Sleep",            // and that of a pause
		"What has not ended by then is begun anew, since somebody waits for it.",
		"What acts on the customer is cancelled then, so that others have their turn.",
		"show-failure", // a change of the code; and what a run of which version of it is found by
		"show-failure-1",
		"overtaking", "overtaking-1", "rouse", "rouse-1", "hurry", "hurry-1", "rouse-later", "rouse-later-1", "turns", "turns-1", "come-back", "come-back-1", "looks-apart", "looks-apart-1",
		"ACTIVITY_ID_NOT_STARTED", "expire-again", "expire-again-1",
	}
}
