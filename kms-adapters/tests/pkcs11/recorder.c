/* A PKCS#11 library in front of another one: notes calls and makes faults. Needs no header: the standard fixes the
 * order of the functions and the layout of what is looked at here.
 *
 * RECORDER_REAL names the other library, RECORDER_FOLDER a folder: `calls` there gets a line `PID FUNCTION` per call, and
 * `fault` names the fault of the moment. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef struct { unsigned char version[2]; void *functions[68]; } list_t;
typedef struct { ulong_t type; void *parameter; ulong_t length; } mechanism_t;
typedef struct { unsigned char *iv; ulong_t iv_length; } gcm_t;

enum { INITIALIZE = 0, FINALIZE = 1, TOKEN_INFO = 6, OPEN = 12, LOGIN = 18, CREATE = 20, DESTROY = 22, ATTRIBUTES = 24, ENCRYPT_INIT = 29, DECRYPT = 34,
       WRAP = 60, UNWRAP = 61 };
enum { DEVICE_ERROR = 0x30, SESSION_COUNT = 0xB1, FINAL_TRY = 0x20000, AES_GCM = 0x1087, FLAGS_AT = 96 };

static list_t real, ours;

static void in_folder(char *path, size_t size, const char *name) {
    snprintf(path, size, "%s/%s", getenv("RECORDER_FOLDER"), name);
}

static void note(const char *function) {
    char path[4096], line[64];
    in_folder(path, sizeof path, "calls");
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    int length = snprintf(line, sizeof line, "%d %s\n", getpid(), function);
    if (file < 0 || write(file, line, (size_t)length) != length) abort();
    close(file);
}

static int fault(const char *name) {
    char path[4096], found[32] = "";
    in_folder(path, sizeof path, "fault");
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (!fgets(found, sizeof found, file)) found[0] = 0;
    fclose(file);
    return strcmp(found, name) == 0;
}

static ulong_t initialize(void *arguments) {
    note("C_Initialize");
    return ((ulong_t (*)(void *))real.functions[INITIALIZE])(arguments);
}

static ulong_t finalize(void *reserved) {
    note("C_Finalize");
    return ((ulong_t (*)(void *))real.functions[FINALIZE])(reserved);
}

static ulong_t token_info(ulong_t slot, unsigned char *info) {
    ulong_t result = ((ulong_t (*)(ulong_t, void *))real.functions[TOKEN_INFO])(slot, info);
    if (fault("final-try")) *(ulong_t *)(void *)(info + FLAGS_AT) |= FINAL_TRY;
    return result;
}

static ulong_t open_session(ulong_t slot, ulong_t flags, void *application, void *callback, ulong_t *session) {
    note("C_OpenSession");
    if (fault("session-count")) return SESSION_COUNT;
    return ((ulong_t (*)(ulong_t, ulong_t, void *, void *, ulong_t *))real.functions[OPEN])(slot, flags, application, callback, session);
}

static ulong_t login(ulong_t session, ulong_t user, void *pin, ulong_t length) {
    note("C_Login");
    return ((ulong_t (*)(ulong_t, ulong_t, void *, ulong_t))real.functions[LOGIN])(session, user, pin, length);
}

/* As an HSM in FIPS mode does: the nonce is not the caller's. */
static ulong_t encrypt_init(ulong_t session, mechanism_t *mechanism, ulong_t key) {
    if (mechanism->type == AES_GCM && fault("own-nonce")) {
        gcm_t *gcm = mechanism->parameter;
        if (getrandom(gcm->iv, gcm->iv_length, 0) != (ssize_t)gcm->iv_length) return DEVICE_ERROR;
    }
    return ((ulong_t (*)(ulong_t, mechanism_t *, ulong_t))real.functions[ENCRYPT_INIT])(session, mechanism, key);
}

static ulong_t decrypt(ulong_t session, void *data, ulong_t length, void *out, ulong_t *out_length) {
    note("C_Decrypt");
    if (fault("device-error")) return DEVICE_ERROR;
    if (fault("hang")) sleep(1);
    return ((ulong_t (*)(ulong_t, void *, ulong_t, void *, ulong_t *))real.functions[DECRYPT])(session, data, length, out, out_length);
}

static ulong_t create(ulong_t session, void *template, ulong_t count, ulong_t *object) {
    note("C_CreateObject");
    return ((ulong_t (*)(ulong_t, void *, ulong_t, ulong_t *))real.functions[CREATE])(session, template, count, object);
}

static ulong_t destroy(ulong_t session, ulong_t object) {
    note("C_DestroyObject");
    return ((ulong_t (*)(ulong_t, ulong_t))real.functions[DESTROY])(session, object);
}

static ulong_t attributes(ulong_t session, ulong_t object, void *template, ulong_t count) {
    if (fault("attributes")) return DEVICE_ERROR;
    return ((ulong_t (*)(ulong_t, ulong_t, void *, ulong_t))real.functions[ATTRIBUTES])(session, object, template, count);
}

static ulong_t wrap(ulong_t session, void *mechanism, ulong_t key, ulong_t object, void *out, ulong_t *length) {
    if (fault("device-error")) return DEVICE_ERROR;
    return ((ulong_t (*)(ulong_t, void *, ulong_t, ulong_t, void *, ulong_t *))real.functions[WRAP])(session, mechanism, key, object, out, length);
}

static ulong_t unwrap(ulong_t session, void *mechanism, ulong_t key, void *data, ulong_t length, void *template, ulong_t count, ulong_t *object) {
    ulong_t result = ((ulong_t (*)(ulong_t, void *, ulong_t, void *, ulong_t, void *, ulong_t, ulong_t *))real.functions[UNWRAP])(session, mechanism, key, data, length, template, count, object);
    if (result == 0) note("C_UnwrapKey");
    return result;
}

ulong_t C_GetFunctionList(list_t **out) {
    void *library = dlopen(getenv("RECORDER_REAL"), RTLD_NOW | RTLD_LOCAL);
    if (!library) return DEVICE_ERROR;
    list_t *list;
    ulong_t (*get)(list_t **) = (ulong_t (*)(list_t **))dlsym(library, "C_GetFunctionList");
    ulong_t result = get(&list);
    if (result) return result;
    real = ours = *list;
    ours.functions[INITIALIZE] = initialize;
    ours.functions[FINALIZE] = finalize;
    ours.functions[TOKEN_INFO] = token_info;
    ours.functions[OPEN] = open_session;
    ours.functions[LOGIN] = login;
    ours.functions[CREATE] = create;
    ours.functions[DESTROY] = destroy;
    ours.functions[ATTRIBUTES] = attributes;
    ours.functions[WRAP] = wrap;
    ours.functions[UNWRAP] = unwrap;
    ours.functions[ENCRYPT_INIT] = encrypt_init;
    ours.functions[DECRYPT] = decrypt;
    *out = &ours;
    return 0;
}
