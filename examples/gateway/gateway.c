/*
 * A gateway: seals readings of sensors into a spool, with no network and no key service, until a backend has them.
 *
 *   gateway seal SPOOL [SECONDS]  reads lines PATIENT <tab> READING, seals both, and answers each line, in order: the ID of its row,
 *                                 once it would survive a power cut, or "refused: " and why. A line has at most 65,535 bytes.
 *                                 Ends when nothing came, or no answer was taken, for so many seconds (60)
 *   gateway pending SPOOL [MAX]   prints what waits, one JSON object per line; needs no key
 *   gateway done SPOOL            reads IDs of rows that the backend has confirmed, and forgets them; needs no key
 *
 * seal takes its key from the folder that CREDENTIALS_DIRECTORY names, as systemd has it: `bundle`, made by `keyfold device provision`,
 * and `transport-key` or `passphrase`. A reading is bound to its row, whose ID is random: the backend can take a row twice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <keyfold_device.h>
#include <limits.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROW_LEN = 32, MAX_LINE = 65536, MAX_ANSWER = 64, MAX_SEALED = MAX_LINE + KFD_SEALED_OVERHEAD };

static const char PATIENT[] = "telemetry.patient", READING[] = "telemetry.reading";
static const char TOO_LONG[] = "refused: a line has at most 65535 bytes";

static kfd_key key;
static sqlite3 *spool;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("gateway: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

/* The spool */

static void check(int result)
{
    if (result != SQLITE_OK && result != SQLITE_ROW && result != SQLITE_DONE)
        fail("the spool: %s", sqlite3_errmsg(spool));
}

static void execute(const char *sql)
{
    check(sqlite3_exec(spool, sql, NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(const char *sql)
{
    sqlite3_stmt *statement;
    check(sqlite3_prepare_v2(spool, sql, -1, &statement, NULL));
    return statement;
}

/* Who only reads or forgets makes none: a path that is mistaken would say that nothing waits. */
static void open_spool(const char *path, int may_create)
{
    umask(0077);
    if (sqlite3_open_v2(path, &spool, SQLITE_OPEN_READWRITE | (may_create ? SQLITE_OPEN_CREATE : 0), NULL) != SQLITE_OK)
        fail("%s: %s", path, sqlite3_errmsg(spool));
    sqlite3_busy_timeout(spool, 10000);
    execute("PRAGMA journal_mode = WAL");
    /* Every commit is on disk before it is answered. */
    execute("PRAGMA synchronous = FULL");
    execute("CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY, row TEXT NOT NULL UNIQUE, patient BLOB NOT NULL, reading BLOB NOT NULL)");
    execute("CREATE TABLE IF NOT EXISTS installed (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL)");
}

/* The key */

/* Reads a file of the credentials folder; returns 0 if there is none of that name. */
static size_t credential(const char *name, void *out, size_t cap)
{
    char path[4096];
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    if (!folder || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        fail("CREDENTIALS_DIRECTORY names no folder");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT)
        return 0;
    size_t len = 0;
    ssize_t count = file < 0 ? -1 : 1;
    while (count > 0 && len < cap) {
        count = read(file, (char *)out + len, cap - len);
        len += count > 0 ? (size_t)count : 0;
    }
    if (count < 0)
        fail("%s: %s", path, strerror(errno));
    close(file);
    return len;
}

static kf_result open_under_passphrase(const uint8_t *bundle, size_t len, char *passphrase, size_t passphrase_len, uint32_t least)
{
    size_t needed;
    kf_result result = kfd_passphrase_work_len(bundle, len, &needed);
    if (result != KF_OK)
        return result;
    /* The first line, as the command reads it. */
    size_t line = 0;
    while (line < passphrase_len && passphrase[line] != '\n')
        line++;
    line -= line > 0 && passphrase[line - 1] == '\r';
    void *work = malloc(needed);
    if (!work)
        fail("the bundle takes %zu bytes of memory to open", needed);
    result = kfd_key_open_passphrase(bundle, len, passphrase, line, least, work, needed, &key);
    free(work);
    return result;
}

/* Opens the bundle. One of an older generation than the last is refused: somebody may have put it back. */
static void open_key(void)
{
    static char secret[KFD_MAX_PASSPHRASE_LEN + 2];
    uint8_t bundle[KFD_BUNDLE_LEN + 1];
    sqlite3_stmt *last = prepare("SELECT generation FROM installed");
    uint32_t least = sqlite3_step(last) == SQLITE_ROW ? (uint32_t)sqlite3_column_int64(last, 0) : 0;
    check(sqlite3_finalize(last));
    /* Best effort: a gateway with little memory may not lock any. */
    if (mlock(&key, sizeof key) != 0 || mlock(secret, sizeof secret) != 0)
        fputs("gateway: the key can be swapped out\n", stderr);

    size_t len = credential("bundle", bundle, sizeof bundle);
    kf_result result;
    size_t secret_len = credential("transport-key", secret, sizeof secret);
    if (secret_len)
        result = kfd_key_open(bundle, len, (const uint8_t *)secret, secret_len, least, &key);
    else if ((secret_len = credential("passphrase", secret, sizeof secret)))
        result = open_under_passphrase(bundle, len, secret, secret_len, least);
    else
        fail("there is neither transport-key nor passphrase in CREDENTIALS_DIRECTORY");
    explicit_bzero(secret, sizeof secret);
    if (result == KF_ERR_RECORD_REJECTED)
        fail("the bundle is older than one that was installed here before");
    if (result != KF_OK)
        fail("the bundle does not open: %s (%d)", kfd_result_name(result), (int)result);

    kfd_key_info info;
    if (kfd_key_get_info(&key, &info) != KF_OK)
        fail("the key is gone");
    sqlite3_stmt *put = prepare("INSERT OR REPLACE INTO installed VALUES (1, ?)");
    check(sqlite3_bind_int64(put, 1, info.generation));
    check(sqlite3_step(put));
    check(sqlite3_finalize(put));
}

/* Sealing */

static int32_t from_system(void *user, uint8_t *out, size_t len)
{
    (void)user;
    return getrandom(out, len, 0) == (ssize_t)len ? KF_OK : KF_ERR_RANDOMNESS_UNAVAILABLE;
}

static void new_row(char row[ROW_LEN + 1])
{
    uint8_t random[ROW_LEN / 2];
    if (from_system(NULL, random, sizeof random) != KF_OK)
        fail("no randomness");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(row + 2 * i, 3, "%02x", random[i]);
}

/* Seals a text into a parameter of `insert`. */
static kf_result seal_into(sqlite3_stmt *insert, int parameter, const char *field, const char *row, const char *text, size_t len)
{
    static uint8_t sealed[MAX_SEALED];
    size_t sealed_len;
    kfd_binding binding = {.field = field, .field_len = strlen(field), .row = row, .row_len = ROW_LEN};
    kf_result result = kfd_seal(&key, &binding, KFD_TYPE_TEXT, text, len, from_system, NULL, sealed, sizeof sealed, &sealed_len);
    if (result == KF_OK)
        check(sqlite3_bind_blob(insert, parameter, sealed, (int)sealed_len, SQLITE_TRANSIENT));
    return result;
}

/* Answers to the lines of the open transaction. They leave when that is committed, and never if the program ends before. */
static char answers[MAX_LINE];
static size_t answers_len;

static void answer(const char *text)
{
    answers_len += (size_t)snprintf(answers + answers_len, sizeof answers - answers_len, "%s\n", text);
}

/* How long the other end may be silent. There are not many connections at a time: one that is left open would keep a sensor out. */
static int idle_ms;

/* Waits until a descriptor can be read or written; returns 0 if the other end has been silent for too long. */
static int is_ready(int descriptor, short event)
{
    struct pollfd waiting = {.fd = descriptor, .events = event};
    int count;
    do
        count = poll(&waiting, 1, idle_ms);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        fail("cannot wait for the connection: %s", strerror(errno));
    return count;
}

static void commit(void)
{
    execute("COMMIT");
    for (size_t sent = 0; sent < answers_len;) {
        if (!is_ready(STDOUT_FILENO, POLLOUT))
            fail("nobody reads the answers");
        /* So much can be written without waiting once anything can. */
        size_t part = answers_len - sent < PIPE_BUF ? answers_len - sent : PIPE_BUF;
        ssize_t count = write(STDOUT_FILENO, answers + sent, part);
        if (count < 0)
            fail("nobody reads the answers");
        sent += (size_t)count;
    }
    answers_len = 0;
}

/* Seals a line into the open transaction, and answers it. Its end may be that of other systems, CR LF. */
static void seal_line(sqlite3_stmt *insert, const char *line, size_t len)
{
    len -= len > 0 && line[len - 1] == '\r';
    const char *tab = memchr(line, '\t', len);
    if (!tab || tab == line || tab + 1 == line + len) {
        answer("refused: not PATIENT, a tab and READING");
        return;
    }
    char row[ROW_LEN + 1];
    new_row(row);
    kf_result result = seal_into(insert, 2, PATIENT, row, line, (size_t)(tab - line));
    if (result == KF_OK)
        result = seal_into(insert, 3, READING, row, tab + 1, (size_t)(line + len - tab - 1));
    if (result == KF_ERR_INVALID_INPUT) {
        answer("refused: not UTF-8");
        return;
    }
    if (result != KF_OK)
        fail("cannot seal: %s (%d)", kfd_result_name(result), (int)result);
    check(sqlite3_bind_text(insert, 1, row, ROW_LEN, SQLITE_TRANSIENT));
    check(sqlite3_step(insert));
    check(sqlite3_reset(insert));
    answer(row);
}

/* All lines that have arrived meanwhile are one transaction, so that many small readings do not wait for the disk each. */
static void seal(void)
{
    static char buffer[MAX_LINE];
    size_t filled = 0;
    int is_too_long = 0;
    ssize_t count = 0;
    sqlite3_stmt *insert = prepare("INSERT INTO spool (row, patient, reading) VALUES (?, ?, ?)");
    while (is_ready(STDIN_FILENO, POLLIN) && (count = read(STDIN_FILENO, buffer + filled, sizeof buffer - filled)) > 0) {
        char *line = buffer, *end;
        filled += (size_t)count;
        execute("BEGIN IMMEDIATE");
        while ((end = memchr(line, '\n', filled - (size_t)(line - buffer)))) {
            if (sizeof answers - answers_len < MAX_ANSWER) {
                commit();
                execute("BEGIN IMMEDIATE");
            }
            if (is_too_long)
                answer(TOO_LONG);
            else
                seal_line(insert, line, (size_t)(end - line));
            is_too_long = 0;
            line = end + 1;
        }
        commit();
        filled -= (size_t)(line - buffer);
        memmove(buffer, line, filled);
        if (filled == sizeof buffer) {
            /* It is read to its end and refused there, so that the answers stay in order. */
            is_too_long = 1;
            filled = 0;
        }
    }
    explicit_bzero(buffer, sizeof buffer);
    kfd_key_wipe(&key);
    if (count < 0 || filled || is_too_long)
        fail(count < 0 ? "the input cannot be read" : "the last line has no end, and was not sealed");
    check(sqlite3_finalize(insert));
}

/* Uploading */

/* The text form of a sealed value: FORMAT.md, section 6. */
static void print_text(const char *name, const uint8_t *sealed, size_t len)
{
    if (len < KFD_SEALED_OVERHEAD)
        fail("the spool is damaged: a value is too short");
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    printf("\"%s\":\"kf1.%02x%02x%02x%02x%02x.", name, sealed[1], sealed[2], sealed[3], sealed[4], sealed[5]);
    for (size_t i = 6; i < len; i += 3) {
        uint32_t group = (uint32_t)sealed[i] << 16;
        size_t count = len - i < 3 ? len - i : 3;
        group |= count > 1 ? (uint32_t)sealed[i + 1] << 8 : 0;
        group |= count > 2 ? sealed[i + 2] : 0;
        for (size_t j = 0; j <= count; j++)
            putchar(digits[group >> (18 - 6 * j) & 63]);
    }
    putchar('"');
}

static void pending(int64_t max)
{
    sqlite3_stmt *rows = prepare("SELECT row, patient, reading FROM spool ORDER BY id LIMIT ?");
    check(sqlite3_bind_int64(rows, 1, max));
    int result;
    while ((result = sqlite3_step(rows)) == SQLITE_ROW) {
        printf("{\"row\":\"%s\",", (const char *)sqlite3_column_text(rows, 0));
        print_text("patient", sqlite3_column_blob(rows, 1), (size_t)sqlite3_column_bytes(rows, 1));
        putchar(',');
        print_text("reading", sqlite3_column_blob(rows, 2), (size_t)sqlite3_column_bytes(rows, 2));
        puts("}");
    }
    check(result);
    check(sqlite3_finalize(rows));
    if (fflush(stdout) != 0)
        fail("nobody reads the output");
}

static void done(void)
{
    char row[ROW_LEN + 3];
    sqlite3_stmt *forget = prepare("DELETE FROM spool WHERE row = ?");
    execute("BEGIN IMMEDIATE");
    while (fgets(row, sizeof row, stdin)) {
        if (strspn(row, "0123456789abcdef") != ROW_LEN || (row[ROW_LEN] && row[ROW_LEN] != '\n'))
            fail("what is no ID of a row was said to be done: nothing is forgotten");
        check(sqlite3_bind_text(forget, 1, row, ROW_LEN, SQLITE_TRANSIENT));
        check(sqlite3_step(forget));
        check(sqlite3_reset(forget));
    }
    execute("COMMIT");
    check(sqlite3_finalize(forget));
}

int main(int count, char **arguments)
{
    /* Neither a core dump nor a debugger of the same user. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_DUMPABLE, 0);
    const char *verb = count >= 3 ? arguments[1] : "";
    int is_pending = !strcmp(verb, "pending");
    int is_seal = !strcmp(verb, "seal");
    int takes_number = is_pending || is_seal;
    char *end = "";
    int64_t number = takes_number && count == 4 ? strtoll(arguments[3], &end, 10) : is_seal ? 60 : 1000;
    if (count > 3 + takes_number || (!takes_number && strcmp(verb, "done")) || *end || number < 1 || (is_seal && number > INT_MAX / 1000)) {
        fputs("usage: gateway seal SPOOL [SECONDS] | gateway pending SPOOL [MAX] | gateway done SPOOL\n", stderr);
        return 2;
    }
    open_spool(arguments[2], is_seal);
    idle_ms = is_seal ? (int)number * 1000 : 0;
    if (is_pending)
        pending(number);
    else if (is_seal)
        open_key(), seal();
    else
        done();
    if (sqlite3_close(spool) != SQLITE_OK)
        fail("the spool is in use");
    return 0;
}
