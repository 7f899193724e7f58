package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

func TestScopes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		level slog.Level
		debug []string
		want  string
	}{
		"nothing asked for":    {slog.LevelInfo, nil, "info"},
		"one scope":            {slog.LevelInfo, []string{"webhook"}, "webhook info"},
		"another scope":        {slog.LevelInfo, []string{"store"}, "info"},
		"all scopes":           {slog.LevelInfo, []string{"*"}, "webhook info"},
		"debug level":          {slog.LevelDebug, nil, "plain webhook temporal info"},
		"scope, but warn only": {slog.LevelWarn, []string{"webhook"}, "webhook info"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			logger := telemetry.NewLogger(&out, telemetry.LogOptions{Level: c.level, Debug: c.debug})
			logger.Debug("plain")
			scoped := telemetry.Scope(logger, telemetry.ScopeWebhook).With("a", 1).WithGroup("g")
			scoped.Debug("webhook")
			telemetry.TemporalLogger(scoped).Debug("temporal")
			scoped.Info("info")
			var messages []string
			for _, line := range lines(t, &out) {
				messages = append(messages, line["msg"].(string))
			}
			if got := strings.Join(messages, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestScopeNamesItself(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	telemetry.Scope(telemetry.NewLogger(&out, telemetry.LogOptions{}), telemetry.ScopeClerk).Info("x")
	telemetry.Scope(slog.New(slog.NewJSONHandler(&out, nil)), telemetry.ScopeClerk).Info("x")
	for i, line := range lines(t, &out) {
		if line["scope"] != "clerk" {
			t.Errorf("line %d: scope is %v", i, line["scope"])
		}
	}
}

func TestConfigurationKnowsTheScopes(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{
		telemetry.ScopeWebhook, telemetry.ScopeDispatch, telemetry.ScopeStripe, telemetry.ScopeClerk, telemetry.ScopeStore,
	} {
		_, err := config.LoadSetup(map[string]string{"DATABASE_URL": "postgres://db/app", "DEBUG": "clerk-stripe-sync:" + scope})
		if err != nil {
			t.Errorf("scope %s: %v", scope, err)
		}
	}
}

func TestTextFormat(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	telemetry.NewLogger(&out, telemetry.LogOptions{Text: true}).Info("hello", "email", "ann@example.com")
	if got := out.String(); !strings.Contains(got, "msg=hello") || strings.Contains(got, "ann@") {
		t.Errorf("got %q", got)
	}
}

type person struct{ Email string }

type status string

func TestRedaction(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attr slog.Attr
		want any
	}{
		"email key":       {slog.String("email", "ann"), "[redacted]"},
		"part of a key":   {slog.String("user_email_address", "ann"), "[redacted]"},
		"camel case":      {slog.String("firstName", "Ann"), "[redacted]"},
		"name":            {slog.String("name", "Ann"), "[redacted]"},
		"not a name":      {slog.String("update_name", "cancel"), "cancel"},
		"namespace":       {slog.String("Namespace", "default"), "default"},
		"authorization":   {slog.String("Authorization", "Bearer x"), "[redacted]"},
		"token":           {slog.String("TaskToken", "x"), "[redacted]"},
		"secrets":         {slog.Any("secrets", []string{"x"}), "[redacted]"},
		"payload":         {slog.Any("payload", []byte("{}")), "[redacted]"},
		"number":          {slog.Int("payload_size", 3), "[redacted]"},
		"in text":         {slog.String("error", "no user ann@example.com here"), "no user [redacted] here"},
		"in an error":     {slog.Any("error", errors.New("dial postgres://app:hunter2@db.internal:5432/x")), "dial postgres://[redacted]:5432/x"},
		"key in text":     {slog.String("error", "key sk_live_abc-1 refused"), "key [redacted] refused"},
		"client secret":   {slog.String("error", "pi_1_secret_2 and user_secret_missing"), "[redacted] and user_secret_missing"},
		"session token":   {slog.String("x", "eyJhbGci.eyJzdWIi.c2ln"), "[redacted]"},
		"stack":           {slog.String("stack", "/mod/go.temporal.io/sdk@v1.50.0/worker.go:1"), "/mod/go.temporal.io/sdk@v1.50.0/worker.go:1"},
		"worker identity": {slog.String("WorkerID", "12@host@"), "12@host@"},
		"struct":          {slog.Any("user", person{Email: "ann@example.com"}), "[telemetry_test.person]"},
		"pointer":         {slog.Any("user", &person{Email: "ann@example.com"}), "[*telemetry_test.person]"},
		"map":             {slog.Any("data", map[string]string{"a": "Ann"}), "[map[string]string]"},
		"raw bytes":       {slog.Any("raw", json.RawMessage(`{"a":1}`)), "[json.RawMessage]"},
		"named string":    {slog.Any("status", status("active")), "active"},
		"strings":         {slog.Any("ids", []string{"a", "b"}), "[a b]"},
		"stringer":        {slog.Any("level", slog.LevelWarn), "WARN"},
		"small number":    {slog.Any("attempt", int32(2)), 2.0},
		"nothing":         {slog.Any("x", nil), nil},
		"log value":       {slog.Any("key", config.Secret("sk_test_x")), "[redacted]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			telemetry.NewLogger(&out, telemetry.LogOptions{}).LogAttrs(t.Context(), slog.LevelInfo, "x", c.attr)
			if got := lines(t, &out)[0][c.attr.Key]; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Keys are judged once each, by several at a time; there may be more of them than are remembered.
func TestRedactionKnowsAKeyAgain(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := telemetry.NewLogger(&out, telemetry.LogOptions{})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range 700 {
				logger.Info("x", fmt.Sprint("key_", i), "seen", fmt.Sprint("email_", i), "ann")
			}
		})
		for i := range 700 {
			logger.Info("x", fmt.Sprint("other_", i), "seen", fmt.Sprint("other_email_", i), "ann")
		}
	}
	wait.Wait()
	if n := strings.Count(out.String(), `"seen"`); n != 8*700 || strings.Contains(out.String(), "ann") {
		t.Errorf("%d of %d are seen, ann among them: %v", n, 8*700, strings.Contains(out.String(), "ann"))
	}
}

func TestRedactionReachesMessagesAndGroups(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := telemetry.NewLogger(&out, telemetry.LogOptions{})
	logger.With("email", "ann").WithGroup("body").Info("hello bob@example.com", "x", "cat", slog.Group("user", "first_name", "dan"))
	for _, word := range []string{"ann", "bob", "cat", "dan"} {
		if strings.Contains(out.String(), word) {
			t.Errorf("%q is in %s", word, out.String())
		}
	}
}

func TestOperation(t *testing.T) {
	t.Parallel()
	op := telemetry.Operation{
		Name: "record", WorkflowID: "customer/cus_1", RunID: "r1", EventID: "evt_1",
		Parameters: map[string]string{"customer": "cus_1"},
	}
	failure := errors.New("it broke")
	for name, c := range map[string]struct {
		out   telemetry.Outcome
		level string
		want  map[string]any
		stack bool
	}{
		"ok":         {telemetry.Outcome{}, "INFO", map[string]any{"result": "ok"}, false},
		"own result": {telemetry.Outcome{Result: "superseded"}, "INFO", map[string]any{"result": "superseded"}, false},
		"routine":    {telemetry.Outcome{Routine: true}, "DEBUG", map[string]any{"result": "ok"}, false},
		"transient": {
			telemetry.Outcome{Err: failure, ErrorClass: "transient"}, "WARN",
			map[string]any{"result": "failed", "error_class": "transient", "error": "it broke"}, false,
		},
		"refused":    {telemetry.Outcome{Err: failure, ErrorClass: telemetry.ClassRefused}, "WARN", map[string]any{"error_class": "refused"}, false},
		"permanent":  {telemetry.Outcome{Err: failure, ErrorClass: "permanent"}, "ERROR", map[string]any{"error_class": "permanent"}, false},
		"unexpected": {telemetry.Outcome{Err: failure}, "ERROR", map[string]any{"result": "failed"}, true},
		"panic": {
			telemetry.Outcome{Err: failure, ErrorClass: "permanent", Stack: []byte("goroutine 1 TestOperation")}, "ERROR",
			map[string]any{"stack": "goroutine 1 TestOperation"}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			logger := telemetry.NewLogger(&out, telemetry.LogOptions{Level: slog.LevelDebug})
			took := telemetry.Begin(logger, op).End(t.Context(), c.out)
			line := lines(t, &out)[0]
			c.want["level"] = c.level
			c.want["operation"], c.want["workflow_id"], c.want["run_id"], c.want["event_id"] = "record", "customer/cus_1", "r1", "evt_1"
			for key, want := range c.want {
				if line[key] != want {
					t.Errorf("%s is %v, want %v", key, line[key], want)
				}
			}
			if got := fmt.Sprint(line["parameters"]); got != "map[customer:cus_1]" {
				t.Errorf("parameters are %s", got)
			}
			if ms, ok := line["duration_ms"].(float64); !ok || ms < 0 || took < 0 {
				t.Errorf("duration is %v", line["duration_ms"])
			}
			if stack, _ := line["stack"].(string); strings.Contains(stack, "TestOperation") != c.stack {
				t.Errorf("stack is %q", stack)
			}
		})
	}
}

func TestOperationWithoutDetails(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := telemetry.NewLogger(&out, telemetry.LogOptions{})
	telemetry.Begin(logger, telemetry.Operation{Name: "sweep"}).End(context.Background(), telemetry.Outcome{Routine: true})
	if out.Len() != 0 {
		t.Errorf("a routine success was logged: %s", out.String())
	}
	telemetry.Begin(logger, telemetry.Operation{Name: "sweep"}).End(context.Background(), telemetry.Outcome{})
	line := lines(t, &out)[0]
	for _, absent := range []string{"workflow_id", "run_id", "event_id", "parameters", "error", "error_class", "stack"} {
		if _, ok := line[absent]; ok {
			t.Errorf("%s is there without a value", absent)
		}
	}
}

// lines decodes the JSON lines written so far and empties out.
func lines(t *testing.T, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for text := range strings.Lines(out.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, line)
	}
	out.Reset()
	return all
}
