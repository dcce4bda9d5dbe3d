package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const openID, closeID = 151667, 151668

type asked struct {
	Model         string `json:"model"`
	MaxTokens     int    `json:"max_tokens"`
	Seed          int    `json:"seed"`
	Stream        bool   `json:"stream"`
	ReturnIDs     bool   `json:"return_token_ids"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// token gives the i-th of n tokens: the tags around the first half, words between.
func token(i, n int) (string, int) {
	switch i {
	case 0:
		return "<think>", openID
	case n / 2:
		return "</think>", closeID
	}
	return " w" + strconv.Itoa(i), 1000 + i
}

func upstream(port int) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{}")) })
	mux.HandleFunc("/v1/models", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"object":"list","data":[{"id":"bench","object":"model","max_model_len":32768}]}`))
	})
	mux.HandleFunc("/tokenize", tokenize)
	mux.HandleFunc("/v1/chat/completions", chat)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, mux))
}

func tokenize(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Prompt string `json:"prompt"`
	}
	json.NewDecoder(r.Body).Decode(&body)
	ids := map[string]string{"<think>": strconv.Itoa(openID), "</think>": strconv.Itoa(closeID)}
	one, found := ids[body.Prompt]
	if !found {
		one = "1,2,3"
	}
	fmt.Fprintf(w, `{"tokens":[%s]}`, one)
}

func chat(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	var q asked
	if json.Unmarshal(data, &q) != nil || q.MaxTokens < 4 {
		http.Error(w, "{}", 400)
		return
	}
	if q.Stream {
		stream(w, r, q)
		return
	}
	var text, ids strings.Builder
	for i := 0; i < q.MaxTokens; i++ {
		word, id := token(i, q.MaxTokens)
		text.WriteString(word)
		fmt.Fprintf(&ids, "%d,", id)
	}
	extra := ""
	if q.ReturnIDs {
		extra = `,"token_ids":[` + strings.TrimSuffix(ids.String(), ",") + "]"
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,`+
		`"message":{"role":"assistant","content":"%s"},"logprobs":null,"finish_reason":"stop"%s}],"usage":%s}`,
		text.String(), extra, usage(q.MaxTokens))
}

func usage(n int) string {
	return fmt.Sprintf(`{"prompt_tokens":10,"total_tokens":%d,"completion_tokens":%d}`, n+10, n)
}

func stream(w http.ResponseWriter, r *http.Request, q asked) {
	flusher := w.(http.Flusher)
	w.Header().Set("Content-Type", "text/event-stream")
	head := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[`
	fmt.Fprint(w, head+`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}`+"\n\n")
	flusher.Flush()
	next := time.Now()
	for i := 0; i < q.MaxTokens; i++ {
		if q.Seed > 0 {
			next = next.Add(time.Second / time.Duration(q.Seed))
			time.Sleep(time.Until(next))
			if r.Context().Err() != nil {
				return
			}
		}
		word, id := token(i, q.MaxTokens)
		ids, reason := "", "null"
		if q.ReturnIDs {
			ids = fmt.Sprintf(`,"token_ids":[%d]`, id)
		}
		if i == q.MaxTokens-1 {
			reason = `"stop"`
		}
		fmt.Fprintf(w, head+`{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s%s}]}`+"\n\n", word, reason, ids)
		if q.Seed > 0 || i%16 == 15 {
			flusher.Flush()
		}
	}
	if q.StreamOptions.IncludeUsage {
		fmt.Fprintf(w, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":%s}`+"\n\n", usage(q.MaxTokens))
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
	flusher.Flush()
}
