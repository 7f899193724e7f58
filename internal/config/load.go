package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Environ returns the environment of this process, as the loaders take it.
func Environ() map[string]string { return env.ToMap(os.Environ()) }

// load fills a T from environ by its `env` tags and has it checked; check may also fill in what
// follows from other values.
func load[T any](environ map[string]string, check func(*T, *checker)) (T, error) {
	var cfg, none T
	variables := variablesOf(reflect.TypeFor[T]())
	c := &checker{order: make(map[string]int, len(variables)), faults: map[string]Fault{}}
	for i, v := range variables {
		c.order[v.name] = i
	}
	err := env.ParseWithOptions(&cfg, env.Options{Environment: given(environ), FuncMap: parsers()})
	if err := c.collect(err, variables); err != nil {
		return none, err
	}
	check(&cfg, c)
	if err := c.err(); err != nil {
		return none, err
	}
	return cfg, nil
}

// given drops variables that are blank and the blanks around the others: a line end that came along
// with a pasted or mounted secret would be refused by the provider, far from its cause.
func given(environ map[string]string) map[string]string {
	set := make(map[string]string, len(environ))
	for name, value := range environ {
		if value = strings.TrimSpace(value); value != "" {
			set[name] = value
		}
	}
	return set
}

// collect turns what the parser found into faults. The parser names fields, not variables, and
// quotes values, so its text is not used. It returns what is not a fault of the environment.
func (c *checker) collect(err error, variables []variable) error {
	if err == nil {
		return nil
	}
	all, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return fmt.Errorf("read the environment: %w", err)
	}
	byField := make(map[string]variable, len(variables))
	for _, v := range variables {
		byField[v.field] = v
	}
	for _, one := range all.Errors {
		parse, ok := errors.AsType[env.ParseError](one)
		if !ok {
			return fmt.Errorf("read the environment: %w", one)
		}
		v, ok := byField[parse.Name]
		if !ok {
			return fmt.Errorf("read the environment: no variable belongs to field %s", parse.Name)
		}
		problem, remedy := misread(v.kind)
		c.add(v.name, problem, remedy)
	}
	return nil
}

// misread says what a value that cannot be read as a kind is not, and how it is written.
func misread(kind reflect.Type) (problem, remedy string) {
	switch {
	case kind == reflect.TypeFor[time.Duration]():
		return "is not a duration", "write a number and a unit, such as 500ms, 30s, 5m or 72h"
	case kind == reflect.TypeFor[Interval]():
		return "is not an interval", "write a number and a unit, such as 10m or 24h, or off"
	case kind == reflect.TypeFor[slog.Level]():
		return "is not a log level", "use debug, info, warn or error"
	case kind.Kind() == reflect.Bool:
		return "is neither true nor false", "use true or false"
	case kind.Kind() == reflect.Float64:
		return "is not a number", "write calls per second as a number, such as 20 or 0.5"
	default:
		return "is not a whole number", "write it in digits, such as 10"
	}
}

// parsers are those kinds of value that the parser does not read as we want them.
func parsers() map[reflect.Type]env.ParserFunc {
	return map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[[]Secret](): func(value string) (any, error) {
			var secrets []Secret
			for _, element := range split(value) {
				secrets = append(secrets, Secret(element))
			}
			return secrets, nil
		},
		reflect.TypeFor[[]string](): func(value string) (any, error) { return split(value), nil },
		reflect.TypeFor[[]account.Drift](): func(value string) (any, error) {
			var classes []account.Drift
			for _, element := range split(value) {
				classes = append(classes, account.Drift(element))
			}
			return classes, nil
		},
		reflect.TypeFor[Interval](): parseInterval,
	}
}

// split cuts a comma-separated list and keeps its empty elements, for the checks to find.
func split(value string) []string {
	elements := strings.Split(value, ",")
	for i, element := range elements {
		elements[i] = strings.TrimSpace(element)
	}
	return elements
}

// variable is one environment variable and the field it fills.
type variable struct {
	name     string
	field    string
	fallback string // the default, as written
	kind     reflect.Type
}

// variablesOf lists the variables of a configuration type, those of embedded groups included. Field
// names are unique across the groups, or the type would not promote them.
func variablesOf(t reflect.Type) []variable {
	var found []variable
	for field := range t.Fields() {
		if field.Anonymous {
			found = append(found, variablesOf(field.Type)...)
			continue
		}
		if name, tagged := field.Tag.Lookup("env"); tagged {
			found = append(found, variable{
				name: name, field: field.Name, fallback: field.Tag.Get("envDefault"), kind: field.Type,
			})
		}
	}
	return found
}
