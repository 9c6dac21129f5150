// SPDX-License-Identifier: Apache-2.0 OR MIT
// keyfold.hpp: every function of it, and what becomes of handles, exceptions and memory. Arguments: a folder, the policy.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <keyfold.hpp>
#include <sys/wait.h>
#include <thread>
#include <type_traits>
#include <unistd.h>

namespace {

std::atomic<int> passed, failed;

void check(bool holds, const char *what, int line)
{
    (holds ? passed : failed)++;
    if (!holds)
        std::printf("line %d: %s\n", line, what);
}

#define CHECK(expression) check((expression), #expression, __LINE__)

template <typename Call> void expect(kf_result code, Call call, int line)
{
    try {
        call();
        check(false, "nothing was thrown", line);
    } catch (const keyfold::Error &error) {
        check(error.code() == code, error.what(), line);
    }
}

#define EXPECT(code, ...) expect(code, [&] { (void)(__VA_ARGS__); }, __LINE__)

using keyfold::Value;

template <typename T> constexpr bool moves = std::is_nothrow_move_constructible_v<T> && !std::is_copy_constructible_v<T>;
static_assert(moves<keyfold::Keyring> && moves<keyfold::Field> && moves<keyfold::Options>);
static_assert(!std::is_constructible_v<keyfold::View, std::nullptr_t>);

void values(const keyfold::Keyring &ring)
{
    const keyfold::Field any = ring.field("any");
    const Value all[] = {
        Value::text("Zoë 病"), Value::text(""), Value::bytes({"\0\xff", 2}), Value::integer(-7), Value::decimal("1.50"), Value::real(0.1),
        Value::boolean(true), Value::date(20783), Value::timestamp(-1, 5), Value::json("{\"a\": 1}"), Value::null(),
        Value::text(std::string(KF_MAX_VALUE_LEN, 'x')),
    };
    for (const Value &value : all) {
        const keyfold::Opened opened = any.decrypt(any.encrypt(value));
        CHECK(opened.value == value && opened.is_current && !opened.is_compromised);
    }
    CHECK(all[3].number().integer == -7 && all[8].number().integer == -1 && all[8].number().nanoseconds == 5);
    CHECK(all[5].number().real == 0.1 && all[0].text() == "Zoë 病");
    EXPECT(KF_ERR_INVALID_INPUT, Value::timestamp(0, 1'000'000'000));
    EXPECT(KF_ERR_INVALID_INPUT, all[0].number());
    EXPECT(KF_ERR_LIMIT_EXCEEDED, any.encrypt(Value::text(std::string(KF_MAX_VALUE_LEN + 1, 'x'))));

    const keyfold::Field bound = ring.field("bound");
    const keyfold::Bytes sealed = bound.encrypt(Value::text("a"), "p-17");
    CHECK(bound.decrypt(sealed, std::string("p-17")).value.text() == "a");
    EXPECT(KF_ERR_INVALID_INPUT, bound.decrypt(sealed));
    /* An empty row is one that is wrong, and no row is none. */
    EXPECT(KF_ERR_INVALID_INPUT, any.encrypt(Value::text("a"), std::string_view()));
    try {
        (void)bound.decrypt(sealed, "p-18");
        CHECK(false);
    } catch (const std::exception &error) {
        const auto &what = dynamic_cast<const keyfold::Error &>(error);
        CHECK(what.code() == KF_ERR_DECRYPTION_FAILED && !what.is_retryable() && !what.row());
        CHECK(std::strcmp(what.name(), "DecryptionFailed") == 0 && std::strlen(what.what()) > 0);
    }
    CHECK(keyfold::Error(KF_ERR_KMS_THROTTLED).is_retryable());

    const std::string text = keyfold::to_text(sealed);
    CHECK(keyfold::from_text(text) == sealed && text.rfind("kf1.", 0) == 0);
    EXPECT(KF_ERR_MALFORMED, keyfold::from_text("kf1.no"));
    EXPECT(KF_ERR_MALFORMED, keyfold::to_text("no"));
    CHECK(keyfold::inspect(sealed).generation > 0 && !keyfold::inspect(sealed).is_deterministic);
    EXPECT(KF_ERR_MALFORMED, keyfold::inspect(""));
}

void columns(const keyfold::Keyring &ring)
{
    const keyfold::Field bound = ring.field("bound"), any = ring.field("any");
    const std::vector<std::uint8_t> types = {KF_TYPE_TEXT, KF_TYPE_NULL, KF_TYPE_BYTES};
    keyfold::Column values, rows;
    for (const char *content : {"low", "", "normal"})
        values.push_back(content);
    for (const char *row : {"r-1", "r-2", "r-3"})
        rows.push_back(row);
    const keyfold::Column sealed = bound.encrypt_column(types, values, &rows);
    const keyfold::OpenedColumn opened = bound.decrypt_column(sealed, &rows);
    CHECK(opened.types == types && opened.values.data() == values.data() && opened.values.offsets() == values.offsets());
    CHECK(opened.counts.outdated == 0 && opened.counts.compromised == 0 && opened.values[2] == "normal");
    CHECK(bound.decrypt(sealed[0], "r-1").value == Value::text("low"));
    CHECK(any.decrypt_column(any.encrypt_column(types, values)).values[0] == "low");
    CHECK(any.decrypt_column(any.encrypt_column({}, {})).values.size() == 0);
    EXPECT(KF_ERR_INVALID_INPUT, bound.encrypt_column({KF_TYPE_TEXT}, values, &rows));
    EXPECT(KF_ERR_INVALID_INPUT, bound.decrypt_column(sealed));
    std::swap(rows, values);
    try {
        (void)bound.decrypt_column(sealed, &rows);
        CHECK(false);
    } catch (const keyfold::Error &error) {
        CHECK(error.code() == KF_ERR_DECRYPTION_FAILED && error.row() == 0U);
    }
    std::swap(rows, values);
    keyfold::Column mixed;
    mixed.push_back(sealed[0]);
    mixed.push_back(sealed[0]);
    mixed.push_back(sealed[2]);
    const keyfold::OpenedColumn each = bound.decrypt_column_each(mixed, &rows);
    CHECK(each.counts.failed == 1 && each.results == std::vector<std::int32_t>({KF_OK, KF_ERR_DECRYPTION_FAILED, KF_OK}));
    CHECK(each.values[0] == "low" && each.values[1].size() == 0 && each.values[2] == "normal" && each.types[1] == 0);
    EXPECT(KF_ERR_INVALID_INPUT, bound.decrypt_column_each(sealed));
}

void searching(const keyfold::Keyring &ring)
{
    const keyfold::Field mrn = ring.field("mrn");
    CHECK(mrn.search(Value::text("M-17")) == std::vector<keyfold::Bytes>({mrn.encrypt(Value::text("M-17"))}));
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("any").search(Value::text("M-17")));
}

void lookups(const keyfold::Keyring &ring)
{
    keyfold::Field mrn = ring.field("mrn");
    const keyfold::Index exact = mrn.index("exact"), start = mrn.index("start");
    { const keyfold::Field gone = std::move(mrn); }
    const std::vector<kf_token> tokens = exact.tokens(Value::text("M-17")), found = exact.search(Value::text("M-17"));
    CHECK(tokens.size() == 1 && found.size() == 1 && std::memcmp(tokens[0].bytes, found[0].bytes, 32) == 0 && found[0].integer == -1);
    CHECK(exact.tokens(Value::null()).empty() && exact.get() != nullptr);
    CHECK(start.tokens(Value::text("Lovelace"))[0].integer == start.search(Value::text("LOV"))[0].integer);
    EXPECT(KF_ERR_INVALID_INPUT, start.search(Value::text("L")));
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("any").index("exact"));

    const keyfold::Field format = ring.field("format");
    const std::string replaced = format.format_encrypt("12-34-567");
    CHECK(replaced != "12-34-567" && replaced[2] == '-' && format.format_decrypt(replaced) == "12-34-567");
    EXPECT(KF_ERR_INVALID_INPUT, format.format_encrypt("1"));
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("any").format_decrypt("12-34-567"));

    const keyfold::Documents documents = ring.documents("clinic-17", {{"tenant", "a"}}), lax = ring.documents(std::nullopt, {}, KF_PASS_UNMATCHED);
    const std::string text = "{\"kind\": \"patient\", \"name\" : \"Ada\"}", sealed = documents.protect(text);
    CHECK(sealed.find("Ada") == std::string::npos && documents.reveal(sealed) == text && documents.get() != nullptr);
    documents.refuse_unused();
    EXPECT(KF_ERR_DECRYPTION_FAILED, ring.documents("clinic-17").reveal(sealed));
    EXPECT(KF_ERR_POLICY_REFUSED, documents.protect("{}"));
    CHECK(lax.protect("{}") == "{}");
}

/* Streams, pushed and pulled. */
void streams(const keyfold::Keyring &ring)
{
    const keyfold::Field image = ring.field("image");
    const std::string text(40000, 'x');
    keyfold::Stream sealing = image.seal_stream();
    keyfold::Bytes sealed = sealing.header();
    const keyfold::Secret most = sealing.update(text), last = sealing.finish();
    sealed.insert(sealed.end(), most.begin(), most.end());
    sealed.insert(sealed.end(), last.begin(), last.end());
    CHECK(sealed.size() == KF_STREAM_HEADER_LEN + text.size() + 3 * 16 && sealing.get() != nullptr);
    const keyfold::View header(sealed.data(), KF_STREAM_HEADER_LEN);
    keyfold::Stream opening = image.open_stream(header);
    const keyfold::Secret first = opening.update({sealed.data() + header.size(), sealed.size() - header.size()}), rest = opening.finish();
    CHECK(std::string(first.begin(), first.end()) + std::string(rest.begin(), rest.end()) == text);
    EXPECT(KF_ERR_CLOSED, opening.finish());
    CHECK(!sealing.is_compromised() && !opening.is_compromised());
    EXPECT(KF_ERR_MALFORMED, image.open_stream(header).finish());
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("any").seal_stream());
    keyfold::StreamReader reader = image.stream_reader(sealed.size(), [&](std::uint64_t offset, void *out, std::size_t len) {
        const std::size_t n = std::min(len, sealed.size() - static_cast<std::size_t>(offset));
        std::memcpy(out, sealed.data() + offset, n);
        return n;
    });
    CHECK(reader.verified_len() == text.size() && reader.read_at(39990, 100).size() == 10 && reader.get() != nullptr && !reader.is_compromised());
    EXPECT(KF_ERR_IO, image.stream_reader(100, [](std::uint64_t, void *, std::size_t) -> std::size_t { throw std::runtime_error("lost"); }));
}

/* A copy of the records in the place of the store, and what is logged about it. */
void records(const keyfold::Keyring &ring, const std::string &config, const std::string &policy)
{
    const keyfold::Bytes sealed = ring.field("any").encrypt(Value::text("low"));
    keyfold::Options options({policy});
    options.set_records(ring.records());
    CHECK(keyfold::Keyring(config, options).field("any").decrypt(sealed).value == Value::text("low"));
    std::atomic<int> lines = 0;
    auto alive = std::make_shared<int>(0);
    keyfold::set_log([&lines, alive](kf_log_level level, std::string_view text) {
        lines += level <= KF_LOG_INFO && !text.empty();
        throw std::runtime_error("lost");
    });
    (void)ring.field("any", "logged").encrypt(Value::null());
    CHECK(lines > 0 && alive.use_count() == 2);
    keyfold::set_log(nullptr);
    CHECK(alive.use_count() == 1);
}

void keys(keyfold::Keyring &ring, const std::string &config, const std::string &policy)
{
    const keyfold::Field field = ring.field("any", "clinic-17");
    const keyfold::Bytes sealed = field.encrypt(Value::integer(1));
    CHECK(field.is_current(sealed));
    const kf_key_info made = ring.rotate("clinic-17");
    CHECK(!field.is_current(sealed) && !field.decrypt(sealed).is_current && made.state == KF_STATE_ACTIVE);
    EXPECT(KF_ERR_NO_MATCHING_KEY, ring.rotate("nobody"));
    EXPECT(KF_ERR_NO_MATCHING_KEY, ring.field("any", "clinic-18").decrypt(sealed));
    (void)ring.field("any", "clinic-18").encrypt(Value::null());
    EXPECT(KF_ERR_WRONG_SCOPE, ring.field("any", "clinic-18").decrypt(sealed));
    (void)ring.field("any").encrypt(Value::null());
    ring.rotate();
    /* More than one page. */
    for (int scope = 0; scope < 260; scope++)
        (void)ring.field("any", "scope-" + std::to_string(scope)).encrypt(Value::null());
    std::vector<std::uint32_t> generations;
    for (const kf_key_info &key : ring.keys())
        generations.push_back(key.generation);
    std::sort(generations.begin(), generations.end());
    CHECK(generations.size() > 260 && std::adjacent_find(generations.begin(), generations.end()) == generations.end());

    const keyfold::Field tenant = ring.field("tenant", std::nullopt, {{"tenant", "a"}});
    const keyfold::Bytes of_tenant = tenant.encrypt(Value::integer(1));
    EXPECT(KF_ERR_DECRYPTION_FAILED, ring.field("tenant", std::nullopt, {{"tenant", "b"}}).decrypt(of_tenant));
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("tenant").decrypt(of_tenant));
    EXPECT(KF_ERR_INVALID_INPUT, ring.field("tenant", std::nullopt, {{"kf:x", "b"}}));
    EXPECT(KF_ERR_POLICY_REFUSED, ring.field("unknown"));
    EXPECT(KF_ERR_IO, keyfold::Keyring("nowhere"));
    EXPECT(KF_ERR_IO, ring.reload("nowhere"));
    ring.reload(config, keyfold::Options({policy}));
    CHECK(field.decrypt(sealed).value == Value::integer(1));
}

void handles(const std::string &config, const std::string &policy)
{
    keyfold::Keyring ring(config, keyfold::Options({policy}));
    keyfold::Field field = ring.field("any");
    const keyfold::Field moved = std::move(field);
    const keyfold::Bytes sealed = moved.encrypt(Value::integer(1));
    EXPECT(KF_ERR_NULL_POINTER, field.encrypt(Value::integer(1)));
    keyfold::Keyring other = std::move(ring);
    EXPECT(KF_ERR_NULL_POINTER, ring.rotate());
    EXPECT(KF_ERR_NULL_POINTER, ring.before_fork());
    CHECK(other.get() != nullptr && moved.get() != nullptr);
    /* No options is not what was in them: an audit trail, say. */
    keyfold::Options options({policy});
    const keyfold::Options taken = std::move(options);
    EXPECT(KF_ERR_NULL_POINTER, keyfold::Keyring(config, options));
    EXPECT(KF_ERR_NULL_POINTER, other.reload(config, options));
    EXPECT(KF_ERR_NULL_POINTER, keyfold::init("unused", "n", "e", std::nullopt, &options));
    CHECK(keyfold::Keyring(config, taken).get() != nullptr);

    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; thread++)
        threads.emplace_back([&, thread] {
            for (int i = 0; i < 500; i++)
                CHECK(moved.decrypt(moved.encrypt(Value::integer(thread * 1000 + i))).value == Value::integer(thread * 1000 + i));
        });
    for (std::thread &thread : threads)
        thread.join();

    other.before_fork();
    if (const pid_t child = fork(); child == 0) {
        int status = 1;
        try {
            status = moved.decrypt(sealed).value == Value::integer(1) && moved.encrypt(Value::null()).size() > 0 ? 0 : 2;
        } catch (...) {
        }
        _exit(status);
    } else {
        int status = -1;
        waitpid(child, &status, 0);
        CHECK(status == 0);
    }
    const kf_field *raw = moved.get();
    {
        const keyfold::Field gone = std::move(const_cast<keyfold::Field &>(moved));
    }
    std::size_t len;
    CHECK(kf_sealed_len(raw, 1, &len, nullptr) == KF_ERR_INVALID_HANDLE);
    const keyfold::Field last = other.field("any");
    other.close();
    EXPECT(KF_ERR_CLOSED, last.encrypt(Value::null()));
}

/// A key service: a file of a kind. Fails as it is told to.
struct Service : keyfold::Kek {
    static std::atomic<int> alive;
    std::atomic<int> mode{0}, unwraps{0};
    Service() { alive++; }
    ~Service() override { alive--; }
    void wrap(const std::uint8_t *payload, const kf_kms_context &context, kf_wrapped &wrapped) override
    {
        std::copy(payload, payload + KF_PAYLOAD_LEN, wrapped.bytes);
        std::copy(context.bytes, context.bytes + context.bytes_len, wrapped.bytes + KF_PAYLOAD_LEN);
        wrapped.len = KF_PAYLOAD_LEN + context.bytes_len;
    }
    void unwrap(const kf_wrapped &wrapped, const kf_kms_context &context, std::uint8_t *payload) override
    {
        unwraps++;
        if (mode == 1)
            throw keyfold::Error(KF_ERR_KMS_ACCESS_DENIED);
        if (mode == 2)
            throw 17;
        if (keyfold::View(wrapped.bytes + KF_PAYLOAD_LEN, wrapped.len - KF_PAYLOAD_LEN) != keyfold::View(context.bytes, context.bytes_len))
            throw keyfold::Error(KF_ERR_KMS_INVALID_CIPHERTEXT);
        std::copy(wrapped.bytes, wrapped.bytes + KF_PAYLOAD_LEN, payload);
    }
};
std::atomic<int> Service::alive;

void callbacks(const std::string &folder, const std::string &policy)
{
    const auto service = std::make_shared<Service>();
    std::atomic<int> events{0};
    bool refuse = false;
    {
        keyfold::Options options({policy});
        options.add_kek("ours", service);
        EXPECT(KF_ERR_INVALID_INPUT, options.add_kek("ours", std::make_shared<Service>()));
        CHECK(Service::alive == 1);
        options.set_audit([&](std::string_view event) {
            if (refuse)
                throw std::runtime_error("no");
            events += event.front() == '{';
        });
        keyfold::init(folder + "/host", "ring", "test", "host:ours", &options);
        const std::string config = folder + "/host/keyfold.toml";
        const auto use = [&] { return keyfold::Keyring(config, options).field("any").encrypt(Value::null()); };
        CHECK(use().size() > 0 && service->unwraps > 0 && events > 0);
        service->mode = 1;
        EXPECT(KF_ERR_KMS_ACCESS_DENIED, use());
        service->mode = 2;
        EXPECT(KF_ERR_KMS_REJECTED, use());
        service->mode = 0;
        refuse = true;
        EXPECT(KF_ERR_IO, use());
        refuse = false;
        options.set_recovery("a drill");
        EXPECT(KF_ERR_INVALID_INPUT, options.set_recovery(""));
        CHECK(use().size() > 0);
        CHECK(service.use_count() > 1);
    }
    CHECK(service.use_count() == 1);

    keyfold::Options options({policy});
    keyfold::Secret passphrase;
    options.set_passphrase([&](std::string_view alias) {
        CHECK(alias == "kek");
        return passphrase;
    });
    const std::string uri = "passphrase:" + folder + "/pass.kek";
    const auto open = [&] {
        return keyfold::Keyring(folder + "/pass/keyfold.toml", options).field("any").encrypt(Value::null()).size();
    };
    /* The command has made it. */
    if (std::ifstream(folder + "/pass.kek").good()) {
        passphrase = {'c', 'o', 'r', 'r', 'e', 'c', 't', ' ', 'h', 'o', 'r', 's', 'e'};
        keyfold::init(folder + "/pass", "ring", "test", uri, &options);
        CHECK(open() > 0);
        passphrase.assign(KF_MAX_PASSPHRASE_LEN + 1, 'x');
        EXPECT(KF_ERR_KMS_CREDENTIALS, open());
    }
}

/// A vector that grows or goes erases what it held.
void erasing()
{
    alignas(16) static std::uint8_t arena[64];
    std::memset(arena, 0xAA, sizeof arena);
    keyfold::detail::ErasingAllocator<std::uint8_t> allocator;
    std::uint8_t *memory = allocator.allocate(4096);
    std::memset(memory, 0xAA, 4096);
    allocator.deallocate(memory, 4096);
    /* What malloc keeps of a free block is in its head; the rest is as it was left. Read through a volatile pointer of its own. */
    std::uint8_t *again = allocator.allocate(4096);
    int left = 0;
    if (again == memory)
        for (std::size_t i = 64; i < 4096; i++)
            left += static_cast<volatile std::uint8_t *>(again)[i] == 0xAA;
    CHECK(left == 0);
    allocator.deallocate(again, 4096);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const std::string folder = argv[1], policy = argv[2], config = folder + "/ring/keyfold.toml";
    try {
        keyfold::init(folder + "/ring", "ring", "test");
        EXPECT(KF_ERR_IO, keyfold::init(folder + "/ring", "ring", "test"));
        keyfold::Keyring ring(config, keyfold::Options({policy}));
        values(ring);
        columns(ring);
        searching(ring);
        lookups(ring);
        streams(ring);
        records(ring, config, policy);
        keys(ring, config, policy);
        handles(config, policy);
        callbacks(folder, policy);
        erasing();
        keyfold::Options options({policy});
        options.set_records("no records");
        EXPECT(KF_ERR_MALFORMED, keyfold::Keyring(config, options));
    } catch (const std::exception &error) {
        std::printf("%s\n", error.what());
        failed++;
    }
    std::printf("%d passed, %d failed\n", passed.load(), failed.load());
    return failed != 0;
}
