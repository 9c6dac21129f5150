package keyfold

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const policy = `version = 1
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
[fields.note]
row_binding = "none"
required_context = ["table"]
`

func open(t *testing.T) *Keyring {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "policy.toml")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Init(filepath.Join(folder, "ring"), "ring", "test"); err != nil {
		t.Fatal(err)
	}
	ring, err := Open(filepath.Join(folder, "ring", "keyfold.toml"), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ring.Close)
	return ring
}

func field(t *testing.T, ring *Keyring, name, scope string, context map[string]string) *Field {
	t.Helper()
	field, err := ring.Field(name, scope, context)
	if err != nil {
		t.Fatal(err)
	}
	return field
}

var day = time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)

func TestOneValue(t *testing.T) {
	ssn := field(t, open(t), "patient.ssn", "", nil)
	for _, value := range []Value{Text("Zoë 病"), Text(""), Integer(-1 << 63), Date(day), Null(), {TypeBytes, []byte{0, 255}}} {
		sealed, err := ssn.Encrypt(value, "p-17")
		if err != nil {
			t.Fatal(err)
		}
		opened, isCurrent, err := ssn.Decrypt(sealed, "p-17")
		if err != nil || !isCurrent || opened.Type != value.Type || !bytes.Equal(opened.Bytes, value.Bytes) {
			t.Errorf("%v opened as %v, %v, %v", value, opened, isCurrent, err)
		}
	}
	if i, err := Integer(-1 << 63).Integer(); i != -1<<63 || err != nil {
		t.Error(i, err)
	}
	if date, err := Date(day.Add(time.Hour)).Date(); !date.Equal(day) || err != nil {
		t.Error(date, err)
	}
	if _, err := Text("12345678").Integer(); !errors.Is(err, ErrInvalidInput) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	ring := open(t)
	ssn := field(t, ring, "patient.ssn", "", nil)
	sealed, err := ssn.Encrypt(Text("999-81-5679"), "p-17")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = ssn.Decrypt(sealed, "p-18")
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != 301 || failed.Name != "DecryptionFailed" || failed.Retryable || failed.Row != -1 {
		t.Errorf("%#v", err)
	}
	if !errors.Is(err, ErrDecryptionFailed) || errors.Is(err, ErrMalformed) || failed.Text == "" {
		t.Error(err)
	}
	if _, _, err := ssn.Decrypt(sealed, ""); !errors.Is(err, ErrInvalidInput) {
		t.Error(err)
	}
	if _, err := Open("nowhere/keyfold.toml"); !errors.Is(err, &Error{Code: 601}) {
		t.Error(err)
	}
	if _, err := FromText("kf1.no"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	text, err := ToText(sealed)
	if back, err2 := FromText(text); err != nil || err2 != nil || !bytes.Equal(back, sealed) || !strings.HasPrefix(text, "kf1.") {
		t.Error(text, err, err2)
	}
	note := field(t, ring, "note", "clinic-17", map[string]string{"table": "notes"})
	sealed, err = note.Encrypt(Text("a"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := field(t, ring, "note", "clinic-17", map[string]string{"table": "x"}).Decrypt(sealed, ""); !errors.Is(err, ErrDecryptionFailed) {
		t.Error(err)
	}
	if err := ring.Rotate("clinic-17"); err != nil {
		t.Fatal(err)
	}
	if value, isCurrent, err := note.Decrypt(sealed, ""); err != nil || isCurrent || value.String() != "a" {
		t.Error(value, isCurrent, err)
	}
}

func TestColumn(t *testing.T) {
	ssn := field(t, open(t), "patient.ssn", "", nil)
	values := []Value{Text("low"), Null(), Date(day), Text(strings.Repeat("x", 1<<20))}
	rows := []string{"r-1", "r-2", "r-3", "r-4"}
	sealed, err := ssn.EncryptColumn(values, rows)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := ssn.DecryptColumn(sealed, rows)
	if err != nil {
		t.Fatal(err)
	}
	for i, value := range values {
		one, _, err := ssn.Decrypt(sealed[i], rows[i])
		if err != nil || opened[i].Type != value.Type || !bytes.Equal(opened[i].Bytes, value.Bytes) || !bytes.Equal(one.Bytes, value.Bytes) {
			t.Errorf("row %d: %v", i, err)
		}
	}
	sealed[2][70] ^= 1
	_, err = ssn.DecryptColumn(sealed, rows)
	var failed *Error
	if !errors.As(err, &failed) || failed.Row != 2 || failed.Code != 301 {
		t.Errorf("%#v", err)
	}
	if none, err := ssn.EncryptColumn(nil, []string{}); len(none) != 0 || err != nil {
		t.Error(none, err)
	}
}

func TestGoroutines(t *testing.T) {
	ssn := field(t, open(t), "patient.ssn", "", nil)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 300 {
				row := fmt.Sprintf("p-%d-%d", worker, i)
				sealed, err := ssn.Encrypt(Text(row), row)
				if err != nil {
					t.Error(err)
					return
				}
				if value, _, err := ssn.Decrypt(sealed, row); err != nil || value.String() != row {
					t.Error(value, err)
				}
				if i%100 == 0 {
					runtime.GC()
				}
			}
		})
	}
	group.Wait()
}

func TestClosing(t *testing.T) {
	ring := open(t)
	ssn, gone := field(t, ring, "patient.ssn", "", nil), field(t, ring, "patient.ssn", "", nil)
	gone.Close()
	gone.Close()
	if _, err := gone.Encrypt(Null(), "p-17"); !errors.Is(err, ErrInvalidHandle) {
		t.Error(err)
	}
	ring.Close()
	ring.Close()
	if _, err := ssn.Encrypt(Null(), "p-17"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// What nobody closes is released by the garbage collector, and nothing that a field still needs.
func TestCleanup(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "policy.toml")
	if err := errors.Join(os.WriteFile(file, []byte(policy), 0o600), Init(filepath.Join(folder, "ring"), "ring", "test")); err != nil {
		t.Fatal(err)
	}
	ring, err := Open(filepath.Join(folder, "ring", "keyfold.toml"), file)
	if err != nil {
		t.Fatal(err)
	}
	ssn, handle := field(t, ring, "patient.ssn", "", nil), field(t, ring, "patient.ssn", "", nil).handle
	for range 100 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
		if _, err := (&Field{handle: handle}).Encrypt(Null(), "p-17"); errors.Is(err, ErrInvalidHandle) {
			if _, err := ssn.Encrypt(Null(), "p-17"); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Error("the field is still there")
}
