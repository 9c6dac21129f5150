// Seals and opens the values of a file: values seal|open CONFIG POLICY < INPUT > OUTPUT.
//
// A line of values is row, type and value, with tabs between them; bytes are in hexadecimal. A line of sealed values is row and
// sealed value in text form.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"keyfold.example/go/keyfold"
)

func parse(kind, text string) (keyfold.Value, error) {
	switch kind {
	case "text":
		return keyfold.Text(text), nil
	case "integer":
		i, err := strconv.ParseInt(text, 10, 64)
		return keyfold.Integer(i), err
	case "date":
		t, err := time.Parse(time.DateOnly, text)
		return keyfold.Date(t), err
	case "bytes":
		b, err := hex.DecodeString(text)
		return keyfold.Value{Type: keyfold.TypeBytes, Bytes: b}, err
	case "null":
		return keyfold.Null(), nil
	}
	return keyfold.Value{}, fmt.Errorf("no such type: %s", kind)
}

func spell(value keyfold.Value) (string, error) {
	switch value.Type {
	case keyfold.TypeText:
		return "text\t" + value.String(), nil
	case keyfold.TypeInteger:
		i, err := value.Integer()
		return "integer\t" + strconv.FormatInt(i, 10), err
	case keyfold.TypeDate:
		t, err := value.Date()
		return "date\t" + t.Format(time.DateOnly), err
	case keyfold.TypeBytes:
		return "bytes\t" + hex.EncodeToString(value.Bytes), nil
	case keyfold.TypeNull:
		return "null\t", nil
	}
	return "", fmt.Errorf("a value of type %d", value.Type)
}

func seal(field *keyfold.Field, rows, lines []string) ([]string, error) {
	values := make([]keyfold.Value, len(lines))
	for i, line := range lines {
		kind, text, found := strings.Cut(line, "\t")
		var err error
		if values[i], err = parse(kind, text); !found || err != nil {
			// The error has the value in it, which may be a patient's.
			return nil, fmt.Errorf("line %d is not row, type and value", i+1)
		}
	}
	sealed, err := field.EncryptColumn(values, rows)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(lines))
	for i := range out {
		if out[i], err = keyfold.ToText(sealed[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func open(field *keyfold.Field, rows, lines []string) ([]string, error) {
	sealed := make([][]byte, len(lines))
	for i, line := range lines {
		var err error
		if sealed[i], err = keyfold.FromText(line); err != nil {
			return nil, fmt.Errorf("line %d is not row and sealed value", i+1)
		}
	}
	values, err := field.DecryptColumn(sealed, rows)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(lines))
	for i := range out {
		if out[i], err = spell(values[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func run(do, config, policy string, in io.Reader, out io.Writer) error {
	ring, err := keyfold.Open(config, policy)
	if err != nil {
		return err
	}
	defer ring.Close()
	field, err := ring.Field("value", "", nil)
	if err != nil {
		return err
	}
	all, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var rows, lines []string
	for line := range strings.Lines(string(all)) {
		row, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		rows, lines = append(rows, row), append(lines, rest)
	}
	work := map[string]func(*keyfold.Field, []string, []string) ([]string, error){"seal": seal, "open": open}[do]
	done, err := work(field, rows, lines)
	if err != nil {
		return err
	}
	buffer := bufio.NewWriter(out)
	for i, line := range done {
		fmt.Fprintf(buffer, "%s\t%s\n", rows[i], line)
	}
	return buffer.Flush()
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 || (os.Args[1] != "seal" && os.Args[1] != "open") {
		log.Fatal("values seal|open CONFIG POLICY < INPUT > OUTPUT")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}
