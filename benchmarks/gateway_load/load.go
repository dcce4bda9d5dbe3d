package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

type loader struct {
	url, path, key, model, mode         string
	concurrency, requests, tokens, rate int
	ramp                                float64
}

type result struct {
	Requests      int     `json:"requests"`
	Failed        int     `json:"failed"`
	Lost          int     `json:"lost"`
	Seconds       float64 `json:"seconds"`
	PerSecond     float64 `json:"per_second"`
	ChunksPerSec  float64 `json:"chunks_per_second"`
	P50           float64 `json:"p50_ms"`
	P99           float64 `json:"p99_ms"`
	FirstP50      float64 `json:"first_p50_ms"`
	FirstP99      float64 `json:"first_p99_ms"`
	InterTokenP50 float64 `json:"inter_p50_ms"`
	InterTokenP99 float64 `json:"inter_p99_ms"`
	FirstError    string  `json:"first_error,omitempty"`
}

// sink collects what one connection saw.
type sink struct {
	total, first, inter []float64
	failed, lost        int
	message             string
}

func (l *loader) run() {
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true}
	client := &http.Client{Transport: transport, Timeout: 300 * time.Second}
	var next int64
	var wait sync.WaitGroup
	sinks := make([]sink, l.concurrency)
	began := time.Now()
	for i := range sinks {
		wait.Add(1)
		go func(s *sink, i int) {
			defer wait.Done()
			time.Sleep(time.Duration(l.ramp * float64(time.Second) * float64(i) / float64(l.concurrency)))
			for atomic.AddInt64(&next, 1) <= int64(l.requests) {
				l.one(client, s)
			}
		}(&sinks[i], i)
	}
	wait.Wait()
	seconds := time.Since(began).Seconds()
	out := result{Requests: l.requests, Seconds: seconds}
	var all sink
	for _, s := range sinks {
		all.total, all.first, all.inter = append(all.total, s.total...), append(all.first, s.first...), append(all.inter, s.inter...)
		out.Failed += s.failed
		out.Lost += s.lost
		if s.message != "" {
			out.FirstError = s.message
		}
	}
	out.PerSecond = float64(len(all.total)) / seconds
	out.ChunksPerSec = float64(len(all.total)*l.tokens) / seconds
	out.P50, out.P99 = quantiles(all.total)
	out.FirstP50, out.FirstP99 = quantiles(all.first)
	out.InterTokenP50, out.InterTokenP99 = quantiles(all.inter)
	json.NewEncoder(os.Stdout).Encode(out)
}

func quantiles(values []float64) (float64, float64) {
	if len(values) == 0 {
		return 0, 0
	}
	sort.Float64s(values)
	return values[len(values)/2], values[min(len(values)-1, len(values)*99/100)]
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func (l *loader) one(client *http.Client, s *sink) {
	body, _ := json.Marshal(map[string]any{
		"model": l.model, "max_tokens": l.tokens, "seed": l.rate, "stream": l.mode == "stream",
		"messages": []map[string]string{{"role": "user", "content": "A man of 60 has had fever and cough for three days. Diagnosis?"}},
	})
	request, _ := http.NewRequest("POST", l.url+l.path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	if l.key != "" {
		request.Header.Set("Authorization", "Bearer "+l.key)
	}
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		s.fail(err.Error())
		return
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		data, _ := io.ReadAll(response.Body)
		s.fail(fmt.Sprintf("%d %.200s", response.StatusCode, data))
		return
	}
	words := 0
	if l.mode == "stream" {
		words, err = l.read(response.Body, s, start)
	} else {
		var data []byte
		data, err = io.ReadAll(response.Body)
		words = visible(data)
	}
	if err != nil {
		s.fail(err.Error())
		return
	}
	s.total = append(s.total, milliseconds(time.Since(start)))
	s.lost += l.tokens - 2 - words
}

func (s *sink) fail(message string) {
	s.failed++
	s.message = message
}

// read follows one stream; returns how many words came.
func (l *loader) read(body io.Reader, s *sink, start time.Time) (int, error) {
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 65536), 1<<20)
	words, last := 0, time.Time{}
	for scanner.Scan() {
		line := scanner.Bytes()
		if !bytes.HasPrefix(line, []byte("data: ")) || bytes.Contains(line, []byte("[DONE]")) {
			continue
		}
		count := visible(line)
		if count == 0 {
			continue
		}
		now := time.Now()
		if last.IsZero() {
			s.first = append(s.first, milliseconds(now.Sub(start)))
		} else {
			s.inter = append(s.inter, milliseconds(now.Sub(last)))
		}
		last = now
		words += count
	}
	return words, scanner.Err()
}

// visible counts the words of the answer in a body or an event; the gateway says a thought twice, as reasoning_content
// and as reasoning.
func visible(data []byte) int {
	thoughts := 0
	if at := bytes.Index(data, []byte(`"reasoning":"`)); at >= 0 {
		end := bytes.IndexByte(data[at+13:], '"')
		thoughts = countWords(data[at+13 : at+13+end])
	}
	return countWords(data) - thoughts
}

func countWords(data []byte) int {
	count := 0
	for i := 0; i+1 < len(data); i++ {
		if data[i] == 'w' && data[i+1] >= '0' && data[i+1] <= '9' {
			count++
		}
	}
	return count
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
