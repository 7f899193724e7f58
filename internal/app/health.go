package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// CheckHealth asks a program's health address and fails unless it answers 200. What it answers
// goes to the writer.
func CheckHealth(ctx context.Context, url string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("%q is not an address such as http://localhost:8080/readyz", url)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("nothing answers there: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(out, io.LimitReader(answer.Body, 1<<16)); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", answer.StatusCode)
	}
	return nil
}
