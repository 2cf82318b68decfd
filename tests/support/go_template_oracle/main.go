// Runs Go's own text/template over the cases of tests/golden/go_template/cases.json and writes down what comes out:
//
//	cd tests/support/go_template_oracle && go run main.go ../../golden/go_template/cases.json
//
// Data are maps, as Ollama gives them; "Messages" and "Tools" become structs with the field names of Ollama's API.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type arguments map[string]any

func (a arguments) String() string { return toJSON(a) }

type function struct {
	Index     int       `json:"-"`
	Name      string    `json:"name"`
	Arguments arguments `json:"arguments"`
}

type toolCall struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	Thinking  string     `json:"thinking,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
	ToolName  string     `json:"tool_name,omitempty"`
}

type property struct {
	Type        string `json:"type"`
	Description string `json:"description"`
}

type toolFunction struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Parameters  struct {
		Type       string              `json:"type"`
		Required   []string            `json:"required"`
		Properties map[string]property `json:"properties"`
	} `json:"parameters"`
}

func (t toolFunction) String() string { return toJSON(t) }

type tool struct {
	Type     string       `json:"type"`
	Function toolFunction `json:"function"`
}

func (t tool) String() string { return toJSON(t) }

type tools []tool

func (t tools) String() string { return toJSON(t) }

type testCase struct {
	Name     string                     `json:"name"`
	Template string                     `json:"template"`
	Data     map[string]json.RawMessage `json:"data"`
	Output   *string                    `json:"output"` // null where Go fails
}

func toJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Whole numbers become ints, as those of templates are; JSON knows only one kind.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil && !strings.ContainsAny(v.String(), ".eE") {
			return int(i)
		}
		f, err := v.Float64()
		must(err)
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	}
	return v
}

func dataOf(raw map[string]json.RawMessage) map[string]any {
	data := map[string]any{}
	for key, value := range raw {
		switch key {
		case "Messages":
			var messages []*message
			must(json.Unmarshal(value, &messages))
			data[key] = messages
		case "Tools":
			var all tools
			must(json.Unmarshal(value, &all))
			data[key] = all
		default:
			decoder := json.NewDecoder(bytes.NewReader(value))
			decoder.UseNumber()
			var v any
			must(decoder.Decode(&v))
			data[key] = plain(v)
		}
	}
	return data
}

func run(c testCase) *string {
	t, err := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{"json": toJSON}).Parse(c.Template)
	if err != nil {
		return nil
	}
	var b bytes.Buffer
	if err := t.Execute(&b, dataOf(c.Data)); err != nil {
		return nil
	}
	s := b.String()
	return &s
}

func main() {
	source, err := os.ReadFile(os.Args[1])
	must(err)
	var cases []testCase
	must(json.Unmarshal(source, &cases))
	for i := range cases {
		cases[i].Output = run(cases[i])
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	must(encoder.Encode(cases))
	must(os.WriteFile(os.Args[1], b.Bytes(), 0o644))
}
