// A service that keeps laboratory results in PostgreSQL, sealed: results store N | results check N, with the variables CONFIG, POLICY
// and DATABASE. examples/go/job.py is the other program on the same table.
//
// Every result is a row of results(id, value, note): the service seals `value`, the job `note`.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"keyfold.example/go/keyfold"
)

// Goroutines that seal and insert.
const workers = 4

type service struct {
	pool        *pgxpool.Pool
	value, note *keyfold.Field
}

func resultOf(id int) int64     { return int64(70 + id*7%300) }
func rowOf(id int) string       { return "r-" + strconv.Itoa(id) }
func noteOf(value int64) string { return fmt.Sprintf("Befund: %d mg/dl, geprüft", value) }

// store seals one result after the other, as they come in, and inserts each worker's in one batch.
func (s *service) store(ctx context.Context, worker, n int) error {
	var rows [][]any
	for id := worker; id < n; id += workers {
		sealed, err := s.value.Encrypt(keyfold.Integer(resultOf(id)), rowOf(id))
		if err != nil {
			return err
		}
		rows = append(rows, []any{rowOf(id), sealed})
	}
	_, err := s.pool.CopyFrom(ctx, pgx.Identifier{"results"}, []string{"id", "value"}, pgx.CopyFromRows(rows))
	return err
}

// check opens all results and what the job has made of them, a column in a call.
func (s *service) check(ctx context.Context, n int) error {
	rows, err := s.pool.Query(ctx, "SELECT id, value, note FROM results ORDER BY id")
	if err != nil {
		return err
	}
	var ids []string
	var values, notes [][]byte
	for rows.Next() {
		var id string
		var value, note []byte
		if err := rows.Scan(&id, &value, &note); err != nil {
			return err
		}
		ids, values, notes = append(ids, id), append(values, value), append(notes, note)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(ids) != n {
		return fmt.Errorf("%d results instead of %d", len(ids), n)
	}
	opened, err := s.value.DecryptColumn(values, ids)
	if err != nil {
		return err
	}
	said, err := s.note.DecryptColumn(notes, ids)
	if err != nil {
		return err
	}
	for i, id := range ids {
		number, _ := strconv.Atoi(id[len("r-"):])
		value, err := opened[i].Integer()
		if err != nil || value != resultOf(number) || said[i].String() != noteOf(value) {
			return fmt.Errorf("%s: another value or note", id)
		}
	}
	// A note that is put into another row does not open there.
	if _, _, err := s.note.Decrypt(notes[0], ids[1]); !errors.Is(err, keyfold.ErrDecryptionFailed) {
		return fmt.Errorf("a note of another row: %v", err)
	}
	_, isCurrent, err := s.value.Decrypt(values[0], ids[0])
	if err != nil {
		return err
	}
	_, noteIsCurrent, err := s.note.Decrypt(notes[0], ids[0])
	fmt.Printf("%d results and notes; values current: %t, notes current: %t\n", len(ids), isCurrent, noteIsCurrent)
	return err
}

func run(ctx context.Context, do string, n int) error {
	ring, err := keyfold.Open(os.Getenv("CONFIG"), os.Getenv("POLICY"))
	if err != nil {
		return err
	}
	defer ring.Close()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE"))
	if err != nil {
		return err
	}
	defer pool.Close()
	s := &service{pool: pool}
	if s.value, err = ring.Field("result.value", "laboratory", nil); err != nil {
		return err
	}
	if s.note, err = ring.Field("result.note", "laboratory", nil); err != nil {
		return err
	}
	if do == "check" {
		return s.check(ctx, n)
	}
	if _, err := pool.Exec(ctx, "CREATE TABLE results (id text PRIMARY KEY, value bytea NOT NULL, note bytea)"); err != nil {
		return err
	}
	failures := make([]error, workers)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() { failures[worker] = s.store(ctx, worker, n) })
	}
	group.Wait()
	return errors.Join(failures...)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 || (os.Args[1] != "store" && os.Args[1] != "check") {
		log.Fatal("results store|check N")
	}
	n, err := strconv.Atoi(os.Args[2])
	if err == nil {
		err = run(context.Background(), os.Args[1], n)
	}
	if err != nil {
		log.Fatal(err)
	}
}
