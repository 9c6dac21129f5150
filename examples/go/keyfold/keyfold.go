// Package keyfold seals and opens fields with libkeyfold. Copy it into your program; what functions do in detail stands in keyfold.h.
//
// Everything may be used from several goroutines. A call that has to wait for the key service or the store holds an operating
// system's thread meanwhile, as every call of C does; one on a warm field does not wait.
package keyfold

/*
#cgo pkg-config: keyfold
#include <keyfold.h>
*/
import "C"

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"
)

// Error is what every failing function returns. Its text may be logged: it holds no value, key or context.
type Error struct {
	// Code is permanent and the same in all languages; Name is how documents write it.
	Code int
	Name string
	// Text is for people.
	Text string
	// Retryable says whether the same call may succeed later without anybody changing anything.
	Retryable bool
	// Row is the row of a column that it is about, or -1.
	Row int
}

// Errors for errors.Is. Any other is &Error{Code: …}, with the numbers of keyfold_result.h.
var (
	ErrInvalidInput     = &Error{Code: C.KF_ERR_INVALID_INPUT}
	ErrInvalidHandle    = &Error{Code: C.KF_ERR_INVALID_HANDLE}
	ErrMalformed        = &Error{Code: C.KF_ERR_MALFORMED}
	ErrDecryptionFailed = &Error{Code: C.KF_ERR_DECRYPTION_FAILED}
	ErrClosed           = &Error{Code: C.KF_ERR_CLOSED}
)

func (e *Error) Error() string { return fmt.Sprintf("%s (%d %s)", e.Text, e.Code, e.Name) }

// Is compares codes.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// failure is nil for KF_OK.
func failure(result C.kf_result, what *C.kf_error) error {
	if result == C.KF_OK {
		return nil
	}
	row := -1
	if what.row != C.KF_NO_ROW {
		row = int(what.row)
	}
	return &Error{int(result), C.GoString(C.kf_result_name(C.int32_t(result))), C.GoString(&what.text[0]), bool(what.is_retryable), row}
}

// text is a string as two arguments. C reads it during the call and no longer.
func text(s string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

// data is where a slice begins.
func data(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(b)) }

// Type is what a value is.
type Type uint8

// The types. Values keep theirs when they are sealed.
const (
	TypeBytes     Type = C.KF_TYPE_BYTES
	TypeText      Type = C.KF_TYPE_TEXT
	TypeInteger   Type = C.KF_TYPE_INTEGER
	TypeDecimal   Type = C.KF_TYPE_DECIMAL
	TypeFloat     Type = C.KF_TYPE_FLOAT
	TypeBoolean   Type = C.KF_TYPE_BOOLEAN
	TypeDate      Type = C.KF_TYPE_DATE
	TypeTimestamp Type = C.KF_TYPE_TIMESTAMP
	TypeJSON      Type = C.KF_TYPE_JSON
	TypeNull      Type = C.KF_TYPE_NULL
)

// Value is a value: of text, JSON, decimals and bytes the Bytes are what they say.
type Value struct {
	Type  Type
	Bytes []byte
}

// Text makes a value of a text.
func Text(s string) Value { return Value{TypeText, []byte(s)} }

// Integer makes a value of a whole number.
func Integer(i int64) Value { return number(TypeInteger, C.int64_t(i)) }

// Date makes a value of the date of t in its time zone.
func Date(t time.Time) Value {
	year, month, day := t.Date()
	return number(TypeDate, C.int64_t(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()/86400))
}

// Null is absence that is itself protected.
func Null() Value { return Value{Type: TypeNull} }

func number(t Type, integer C.int64_t) Value {
	number := C.kf_number{integer: integer}
	var length C.size_t
	out := make([]byte, C.KF_MAX_NUMBER_LEN)
	var what C.kf_error
	if result := C.kf_number_encode(C.uint8_t(t), &number, data(out), C.size_t(len(out)), &length, &what); result != C.KF_OK {
		panic(failure(result, &what)) // A date beyond 32 bits, five million years from here.
	}
	return Value{t, out[:length]}
}

// String is the text of a text, decimal or JSON value.
func (v Value) String() string { return string(v.Bytes) }

// Integer is the number of a whole number.
func (v Value) Integer() (int64, error) { return v.number(TypeInteger) }

// Date is the date of a date, at midnight UTC.
func (v Value) Date() (time.Time, error) {
	days, err := v.number(TypeDate)
	return time.Unix(days*86400, 0).UTC(), err
}

func (v Value) number(t Type) (int64, error) {
	var number C.kf_number
	var what C.kf_error
	result := C.kf_number_decode(C.uint8_t(t), data(v.Bytes), C.size_t(len(v.Bytes)), &number, &what)
	if result == C.KF_OK && v.Type != t {
		return 0, &Error{Code: C.KF_ERR_INVALID_INPUT, Name: "InvalidInput", Text: "the value is of another type", Row: -1}
	}
	return int64(number.integer), failure(result, &what)
}

// Init makes a keyring in a folder, with its key in a file: for one machine and for tests.
func Init(folder, name, environment string) error {
	f, fLen := text(folder)
	n, nLen := text(name)
	e, eLen := text(environment)
	var what C.kf_error
	return failure(C.kf_init(f, fLen, n, nLen, e, eLen, nil, 0, nil, &what), &what)
}

// Keyring is an open keyring. One is enough for a process.
type Keyring struct{ handle *C.kf_keyring }

// Open opens the keyring of a configuration file, with the fields of policy files.
func Open(config string, policies ...string) (*Keyring, error) {
	var what C.kf_error
	var options *C.kf_options
	if result := C.kf_options_new(&options, &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	defer C.kf_options_free(options)
	for _, policy := range policies {
		path, pathLen := text(policy)
		if result := C.kf_options_add_policy(options, path, pathLen, &what); result != C.KF_OK {
			return nil, failure(result, &what)
		}
	}
	path, pathLen := text(config)
	ring := &Keyring{}
	if result := C.kf_keyring_open(path, pathLen, options, &ring.handle, &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	runtime.AddCleanup(ring, func(handle *C.kf_keyring) { C.kf_keyring_close(handle) }, ring.handle)
	return ring, nil
}

// Close closes the keyring; its fields fail with ErrClosed from then on. What nobody closes is closed when the garbage collector
// finds it. Closing twice does nothing: a handle that was released is refused, and never one of something else.
func (r *Keyring) Close() { C.kf_keyring_close(r.handle) }

// Rotate makes a new key that seals in a scope from now on ("" where no scope is used). Older ones still open.
func (r *Keyring) Rotate(scope string) error {
	s, sLen := text(scope)
	var what C.kf_error
	defer runtime.KeepAlive(r)
	return failure(C.kf_keyring_rotate(r.handle, optional(s, sLen), sLen, nil, &what), &what)
}

// optional is NULL for "".
func optional(s *C.char, length C.size_t) *C.char {
	if length == 0 {
		return nil
	}
	return s
}

// Field is a field of the policy, bound to a scope and a context. Make it once per tenant or table, not per value.
type Field struct {
	handle *C.kf_field
	// Without it the garbage collector could close the keyring under a field that is in use.
	ring *Keyring
}

// Field binds a field of the policy to a scope ("": none) and a context (nil: none).
func (r *Keyring) Field(name, scope string, context map[string]string) (*Field, error) {
	var what C.kf_error
	var pairs *C.kf_context
	if result := C.kf_context_new(&pairs, &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	defer C.kf_context_free(pairs)
	for key, value := range context {
		k, kLen := text(key)
		v, vLen := text(value)
		if result := C.kf_context_add(pairs, k, kLen, unsafe.Pointer(v), vLen, &what); result != C.KF_OK {
			return nil, failure(result, &what)
		}
	}
	n, nLen := text(name)
	s, sLen := text(scope)
	field := &Field{ring: r}
	result := C.kf_field_new(r.handle, n, nLen, optional(s, sLen), sLen, pairs, &field.handle, &what)
	if result != C.KF_OK {
		return nil, failure(result, &what)
	}
	runtime.AddCleanup(field, func(handle *C.kf_field) { C.kf_field_free(handle) }, field.handle)
	return field, nil
}

// Close releases the field before the garbage collector does.
func (f *Field) Close() { C.kf_field_free(f.handle) }

// Encrypt seals a value, bound to a row ("": none) where the policy says so.
func (f *Field) Encrypt(value Value, row string) ([]byte, error) {
	defer runtime.KeepAlive(f)
	var what C.kf_error
	var length C.size_t
	valueLen := C.size_t(len(value.Bytes))
	if result := C.kf_sealed_len(f.handle, valueLen, &length, &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	out := make([]byte, length)
	r, rLen := text(row)
	result := C.kf_encrypt(f.handle, C.uint8_t(value.Type), unsafe.Pointer(data(value.Bytes)), valueLen,
		unsafe.Pointer(optional(r, rLen)), rLen, data(out), length, &length, &what)
	if result != C.KF_OK {
		return nil, failure(result, &what)
	}
	return out[:length], nil
}

// Decrypt opens a sealed value. Where it says that the value is not current, encrypt it again when convenient.
func (f *Field) Decrypt(sealed []byte, row string) (value Value, isCurrent bool, err error) {
	defer runtime.KeepAlive(f)
	out := make([]byte, C.kf_opened_len_max(C.size_t(len(sealed))))
	r, rLen := text(row)
	var opened C.kf_opened
	var what C.kf_error
	result := C.kf_decrypt(f.handle, data(sealed), C.size_t(len(sealed)), unsafe.Pointer(optional(r, rLen)), rLen,
		unsafe.Pointer(data(out)), C.size_t(len(out)), &opened, &what)
	if result != C.KF_OK {
		return Value{}, false, failure(result, &what)
	}
	return Value{Type(opened._type), out[:opened.len]}, bool(opened.is_current), nil
}

// column holds byte strings of a column in Arrow's layout, pinned: C follows pointers that are inside of a struct.
type column struct {
	bytes   []byte
	offsets []C.int64_t
}

func columnOf[T string | []byte](rows []T) column {
	made := column{offsets: make([]C.int64_t, 1, len(rows)+1)}
	for _, row := range rows {
		made.bytes = append(made.bytes, row...)
		made.offsets = append(made.offsets, C.int64_t(len(made.bytes)))
	}
	return made
}

// pin keeps the column where it is until the pinner lets go.
func (c column) pin(pinner *runtime.Pinner) (*C.uint8_t, *C.int64_t) {
	if len(c.bytes) > 0 {
		pinner.Pin(unsafe.SliceData(c.bytes))
	}
	pinner.Pin(unsafe.SliceData(c.offsets))
	return data(c.bytes), unsafe.SliceData(c.offsets)
}

func (c column) in(pinner *runtime.Pinner) *C.kf_column {
	bytes, offsets := c.pin(pinner)
	return &C.kf_column{data: bytes, data_len: C.size_t(len(c.bytes)), offsets: offsets, rows: C.size_t(len(c.offsets) - 1)}
}

func (c column) out(pinner *runtime.Pinner) *C.kf_column_out {
	bytes, offsets := c.pin(pinner)
	return &C.kf_column_out{data: bytes, data_cap: C.size_t(len(c.bytes)), offsets: offsets, offsets_cap: C.size_t(len(c.offsets))}
}

func (c column) row(i int) []byte { return c.bytes[c.offsets[i]:c.offsets[i+1]:c.offsets[i+1]] }

// bound is the column of rows that values are bound to; nil: none.
func bound(rows []string, pinner *runtime.Pinner) *C.kf_column {
	if rows == nil {
		return nil
	}
	return columnOf(rows).in(pinner)
}

// EncryptColumn seals many values in one call, each bound to its row; rows are nil where the policy binds none.
func (f *Field) EncryptColumn(values []Value, rows []string) ([][]byte, error) {
	defer runtime.KeepAlive(f)
	var pinner runtime.Pinner
	defer pinner.Unpin()
	types, contents := make([]byte, len(values)), make([][]byte, len(values))
	for i, value := range values {
		types[i], contents[i] = byte(value.Type), value.Bytes
	}
	in := columnOf(contents).in(&pinner)
	var what C.kf_error
	var length C.size_t
	if result := C.kf_sealed_column_len(f.handle, in, &length, &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	sealed := column{make([]byte, length), make([]C.int64_t, len(values)+1)}
	if result := C.kf_encrypt_column(f.handle, data(types), in, bound(rows, &pinner), sealed.out(&pinner), &what); result != C.KF_OK {
		return nil, failure(result, &what)
	}
	out := make([][]byte, len(values))
	for i := range out {
		out[i] = sealed.row(i)
	}
	return out, nil
}

// DecryptColumn opens many values in one call. One that does not open fails it, and Error.Row says which.
func (f *Field) DecryptColumn(sealed [][]byte, rows []string) ([]Value, error) {
	defer runtime.KeepAlive(f)
	var pinner runtime.Pinner
	defer pinner.Unpin()
	in := columnOf(sealed).in(&pinner)
	opened := column{make([]byte, C.kf_opened_column_len_max(in.data_len, in.rows)), make([]C.int64_t, len(sealed)+1)}
	types := make([]byte, len(sealed))
	var what C.kf_error
	result := C.kf_decrypt_column(f.handle, in, bound(rows, &pinner), data(types), C.size_t(len(types)), opened.out(&pinner), nil, &what)
	if result != C.KF_OK {
		return nil, failure(result, &what)
	}
	values := make([]Value, len(sealed))
	for i := range values {
		values[i] = Value{Type(types[i]), opened.row(i)}
	}
	return values, nil
}

// ToText is the form of a sealed value for columns of text, JSON and CSV.
func ToText(sealed []byte) (string, error) {
	length := C.kf_text_len(C.size_t(len(sealed)))
	out := make([]byte, length)
	var what C.kf_error
	result := C.kf_to_text(data(sealed), C.size_t(len(sealed)), (*C.char)(unsafe.Pointer(data(out))), length, &length, &what)
	return string(out[:length]), failure(result, &what)
}

// FromText is the sealed value of a text form.
func FromText(s string) ([]byte, error) {
	t, tLen := text(s)
	length := C.kf_text_sealed_len_max(tLen)
	out := make([]byte, length)
	var what C.kf_error
	result := C.kf_from_text(t, tLen, data(out), length, &length, &what)
	if result != C.KF_OK {
		return nil, failure(result, &what)
	}
	return out[:length], nil
}
