// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// keyfold.hpp - keyfold.h for C++17: handles that release themselves, and exceptions.
//
// What functions do, when they block, and what they return stands in keyfold.h; here is only what differs. It is one file, however
// long, so that one file is what a program copies.
//
// Failures are exceptions of type keyfold::Error, since constructors fail here that C++17 has no other way out of; programs
// without exceptions use keyfold.h. No exception passes through C: what a function of the program throws becomes a result.
//
// Handles are moved and not copied. One that was moved from is empty, and using it is KF_ERR_INVALID_HANDLE or
// KF_ERR_NULL_POINTER. Methods that are const may be called from several threads at once.
//
// Values are in memory that is erased before it is freed. Copies that the program makes are its own to erase.

#ifndef KEYFOLD_HPP
#define KEYFOLD_HPP

#include "keyfold.h"

#if __cplusplus < 201703L
#error "keyfold.hpp needs C++17 (-std=c++17); keyfold.h is for all versions of C++"
#else

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace keyfold {

/// What went wrong. Its text may be logged, and is not a part of the API: programs look at the code.
class Error : public std::runtime_error {
public:
    explicit Error(const kf_error &what) : std::runtime_error(what.text), code_(static_cast<kf_result>(what.code)), row_(what.row) {}

    /// For functions of the program that keyfold calls, which say so how they failed.
    explicit Error(kf_result code) : std::runtime_error(name_of(code)), code_(code), row_(KF_NO_ROW) {}

    kf_result code() const noexcept { return code_; }
    /// Such as "DecryptionFailed".
    const char *name() const noexcept { return name_of(code_); }
    /// Whether the same call may succeed later without anybody changing anything.
    bool is_retryable() const noexcept { return kf_result_is_retryable(code_); }
    /// The row of a column that it is about.
    std::optional<std::uint64_t> row() const noexcept { return row_ == KF_NO_ROW ? std::nullopt : std::optional(row_); }

private:
    static const char *name_of(kf_result code) noexcept
    {
        const char *name = kf_result_name(code);
        return name == nullptr ? "unknown" : name;
    }

    kf_result code_;
    std::uint64_t row_;
};

namespace detail {

/// Memory that is erased before it is freed, so also where a vector grows.
template <typename T> struct ErasingAllocator {
    using value_type = T;
    ErasingAllocator() = default;
    template <typename U> ErasingAllocator(const ErasingAllocator<U> &) noexcept {}
    T *allocate(std::size_t count) { return std::allocator<T>().allocate(count); }
    void deallocate(T *memory, std::size_t count) noexcept
    {
        // Volatile, since compilers leave out what nobody reads.
        volatile unsigned char *bytes = reinterpret_cast<volatile unsigned char *>(memory);
        for (std::size_t i = 0; i < count * sizeof(T); i++)
            bytes[i] = 0;
        std::allocator<T>().deallocate(memory, count);
    }
    friend bool operator==(const ErasingAllocator &, const ErasingAllocator &) noexcept { return true; }
    friend bool operator!=(const ErasingAllocator &, const ErasingAllocator &) noexcept { return false; }
};

template <typename T, kf_result (*Release)(T *)> struct Releaser {
    void operator()(T *handle) const noexcept { Release(handle); }
};
template <typename T, kf_result (*Release)(T *)> using Handle = std::unique_ptr<T, Releaser<T, Release>>;

/// Calls a function whose last argument is a kf_error.
template <typename Call> void must(Call call)
{
    kf_error what;
    if (call(&what) != KF_OK)
        throw Error(what);
}

/// Calls a function of the program for C, into which nothing may be thrown.
template <typename Call> std::int32_t guard(Call call) noexcept
{
    try {
        call();
        return KF_OK;
    } catch (const Error &failed) {
        return failed.code() == KF_OK ? KF_ERR_INTERNAL : failed.code();
    } catch (...) {
        return KF_ERR_INTERNAL;
    }
}

/// Releases what a callback was given.
template <typename T> void release(void *user) { delete static_cast<T *>(user); }

} // namespace detail

/// Bytes that are no secret, such as sealed values.
using Bytes = std::vector<std::uint8_t>;
/// Bytes that are erased before their memory is freed.
using Secret = std::vector<std::uint8_t, detail::ErasingAllocator<std::uint8_t>>;

/// Bytes of somebody else's.
class View {
public:
    View(const void *data, std::size_t size) : data_(static_cast<const std::uint8_t *>(data)), size_(size) {}
    View(std::string_view text) : View(text.data(), text.size()) {}
    View(const std::string &text) : View(text.data(), text.size()) {}
    View(const char *text) : View(std::string_view(text)) {}
    View(std::nullptr_t) = delete;
    template <typename Allocator>
    View(const std::vector<std::uint8_t, Allocator> &bytes) : View(bytes.data(), bytes.size()) {}

    const std::uint8_t *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::string_view text() const noexcept { return {reinterpret_cast<const char *>(data_), size_}; }
    friend bool operator==(View a, View b) noexcept { return a.text() == b.text(); }
    friend bool operator!=(View a, View b) noexcept { return !(a == b); }

private:
    const std::uint8_t *data_;
    std::size_t size_;
};

namespace detail {

/// An optional argument as two: only one that is none may be NULL.
struct Optional {
    Optional(std::optional<View> given)
        : data(!given ? nullptr : given->data() == nullptr ? "" : given->text().data()), size(given ? given->size() : 0)
    {
    }
    const char *data;
    std::size_t size;
};

} // namespace detail

/// What a value is bound to, where the policy binds rows: nullopt is no row, and an empty one is something else.
using Row = std::optional<View>;

/// A value: a type and bytes.
class Value {
public:
    Value(kf_type type, View content) : type_(type), bytes_(content.data(), content.data() + content.size()) {}

    static Value text(std::string_view text) { return {KF_TYPE_TEXT, text}; }
    static Value bytes(View bytes) { return {KF_TYPE_BYTES, bytes}; }
    static Value decimal(std::string_view text) { return {KF_TYPE_DECIMAL, text}; }
    static Value json(std::string_view text) { return {KF_TYPE_JSON, text}; }
    static Value null() { return {KF_TYPE_NULL, ""}; }
    static Value integer(std::int64_t integer) { return number(KF_TYPE_INTEGER, {integer, 0, 0, 0}); }
    static Value boolean(bool truth) { return number(KF_TYPE_BOOLEAN, {truth, 0, 0, 0}); }
    static Value real(double real) { return number(KF_TYPE_FLOAT, {0, real, 0, 0}); }
    /// Days since 1970-01-01.
    static Value date(std::int32_t days) { return number(KF_TYPE_DATE, {days, 0, 0, 0}); }
    static Value timestamp(std::int64_t seconds, std::uint32_t nanoseconds)
    {
        return number(KF_TYPE_TIMESTAMP, {seconds, 0, nanoseconds, 0});
    }

    kf_type type() const noexcept { return type_; }
    View content() const noexcept { return bytes_; }
    std::string_view text() const noexcept { return content().text(); }
    /// A number, date or time as C has it.
    kf_number number() const
    {
        kf_number number;
        detail::must([&](kf_error *e) { return kf_number_decode(type_, bytes_.data(), bytes_.size(), &number, e); });
        return number;
    }
    friend bool operator==(const Value &a, const Value &b) noexcept { return a.type_ == b.type_ && a.bytes_ == b.bytes_; }
    friend bool operator!=(const Value &a, const Value &b) noexcept { return !(a == b); }

private:
    static Value number(kf_type type, const kf_number &number)
    {
        Value made(type, "");
        std::size_t len;
        made.bytes_.resize(KF_MAX_NUMBER_LEN);
        detail::must([&](kf_error *e) { return kf_number_encode(type, &number, made.bytes_.data(), made.bytes_.size(), &len, e); });
        made.bytes_.resize(len);
        return made;
    }

    friend class Field;
    kf_type type_;
    Secret bytes_;
};

/// Byte strings, one per row, in the layout of Arrow's LargeBinary.
class Column {
public:
    void push_back(View content)
    {
        data_.insert(data_.end(), content.data(), content.data() + content.size());
        offsets_.push_back(static_cast<std::int64_t>(data_.size()));
    }
    std::size_t size() const noexcept { return offsets_.empty() ? 0 : offsets_.size() - 1; }
    View operator[](std::size_t row) const
    {
        const auto begin = static_cast<std::size_t>(offsets_[row]), end = static_cast<std::size_t>(offsets_[row + 1]);
        return {data_.data() + begin, end - begin};
    }
    const Secret &data() const noexcept { return data_; }
    const std::vector<std::int64_t> &offsets() const noexcept { return offsets_; }

private:
    friend class Field;
    kf_column in() const { return {data_.data(), data_.size(), offsets_.data(), size()}; }
    /// Room for `size` bytes in `rows` rows.
    kf_column_out out(std::size_t size, std::size_t rows)
    {
        data_.resize(size);
        offsets_.resize(rows + 1);
        return {data_.data(), data_.size(), offsets_.data(), offsets_.size()};
    }

    Secret data_;
    std::vector<std::int64_t> offsets_ = {0};
};

/// A value that was opened.
struct Opened {
    Value value;
    /// If not, encrypt it again when convenient.
    bool is_current;
    bool is_compromised;
};

/// A column that was opened.
struct OpenedColumn {
    /// One of KF_TYPE_* for each row.
    std::vector<std::uint8_t> types;
    Column values;
    /// How many rows are not under the key that seals, and how many under one that is compromised.
    kf_opened_column counts;
    /// Of decrypt_column_each: KF_OK for each row, or why there is no value.
    std::vector<std::int32_t> results = {};
};

/// A blind index of a field. Made by Field::index.
class Index {
public:
    /// What to store of a value: one token, of prefixes one per length, of nothing none.
    [[nodiscard]] std::vector<kf_token> tokens(const Value &value) const { return made(kf_index_tokens, value, KF_MAX_TOKENS); }

    /// What to look for to find a value: a token under each key.
    [[nodiscard]] std::vector<kf_token> search(const Value &value) const
    {
        std::size_t keys;
        detail::must([&](kf_error *e) { return kf_index_keys(handle_.get(), &keys, e); });
        return made(kf_index_search, value, keys);
    }

    const kf_index *get() const noexcept { return handle_.get(); }

private:
    template <typename Way> std::vector<kf_token> made(Way way, const Value &value, std::size_t cap) const
    {
        std::vector<kf_token> tokens(cap);
        std::size_t len;
        const View content = value.content();
        detail::must([&](kf_error *e) {
            return way(handle_.get(), value.type(), content.data(), content.size(), tokens.data(), tokens.size(), &len, e);
        });
        tokens.resize(len);
        return tokens;
    }

    friend class Field;
    explicit Index(kf_index *handle) : handle_(handle) {}
    detail::Handle<kf_index, kf_index_free> handle_;
};

/// JSON documents that are protected and revealed by the policy's paths. Made by Keyring::documents.
class Documents {
public:
    [[nodiscard]] std::string protect(std::string_view text) const { return made(kf_document_protect, text); }
    /// The text as it was. Nothing erases it.
    [[nodiscard]] std::string reveal(std::string_view text) const { return made(kf_document_reveal, text); }
    /// After the last document: refuses fields that applied and never selected anything.
    void refuse_unused() const
    {
        detail::must([&](kf_error *e) { return kf_documents_refuse_unused(handle_.get(), e); });
    }

    const kf_documents *get() const noexcept { return handle_.get(); }

private:
    template <typename Way> std::string made(Way way, std::string_view text) const
    {
        std::string out;
        const auto write = [](void *user, const char *document, std::size_t len) -> std::int32_t {
            return detail::guard([&] { static_cast<std::string *>(user)->assign(document, len); });
        };
        detail::must([&](kf_error *e) { return way(handle_.get(), text.data(), text.size(), write, &out, e); });
        return out;
    }

    friend class Keyring;
    explicit Documents(kf_documents *handle) : handle_(handle) {}
    detail::Handle<kf_documents, kf_documents_free> handle_;
};

/// A stream that is sealed or opened piece by piece. Made by Field::seal_stream and Field::open_stream.
class Stream {
public:
    /// Of a stream that is sealed: its first KF_STREAM_HEADER_LEN bytes.
    const Bytes &header() const noexcept { return header_; }

    /// The chunks that `piece` completes: sealed, or plaintext that was verified, which is not final until finish() has returned.
    [[nodiscard]] Secret update(View piece)
    {
        return made(kf_stream_out_len_max(piece.size()), [&](Secret &out, std::size_t *len, kf_error *e) {
            return kf_stream_update(handle_.get(), piece.data(), piece.size(), out.data(), out.size(), len, e);
        });
    }

    /// The last chunk: now the stream is complete. A stream that is destroyed before is not.
    [[nodiscard]] Secret finish()
    {
        return made(kf_stream_out_len_max(0), [&](Secret &out, std::size_t *len, kf_error *e) {
            return kf_stream_finish(handle_.get(), out.data(), out.size(), len, e);
        });
    }

    /// Of a stream that is opened: whether whoever has its compromised key can have made it.
    [[nodiscard]] bool is_compromised() const
    {
        bool told;
        detail::must([&](kf_error *e) { return kf_stream_is_compromised(handle_.get(), &told, e); });
        return told;
    }

    kf_stream *get() const noexcept { return handle_.get(); }

private:
    template <typename Call> Secret made(std::size_t room, Call call)
    {
        Secret out(room);
        std::size_t len;
        detail::must([&](kf_error *e) { return call(out, &len, e); });
        out.resize(len);
        return out;
    }

    friend class Field;
    explicit Stream(kf_stream *handle, Bytes header = {}) : handle_(handle), header_(std::move(header)) {}
    detail::Handle<kf_stream, kf_stream_free> handle_;
    Bytes header_;
};

/// A stream of which any part can be read. Made by Field::stream_reader.
class StreamReader {
public:
    /// Reads up to `len` bytes of the sealed stream at `offset` to `out`, and says how many: none only where it ends.
    using ReadAt = std::function<std::size_t(std::uint64_t offset, void *out, std::size_t len)>;

    /// `len` bytes of plaintext from `offset` on, or fewer where the stream ends, which was verified then.
    [[nodiscard]] Secret read_at(std::uint64_t offset, std::size_t len)
    {
        Secret out(len);
        detail::must([&](kf_error *e) { return kf_stream_read_at(handle_.get(), offset, out.data(), out.size(), &len, e); });
        out.resize(len);
        return out;
    }

    /// Bytes of plaintext, after the last chunk was opened.
    [[nodiscard]] std::uint64_t verified_len()
    {
        std::uint64_t len;
        detail::must([&](kf_error *e) { return kf_stream_verified_len(handle_.get(), &len, e); });
        return len;
    }

    /// Whether whoever has its compromised key can have made it.
    [[nodiscard]] bool is_compromised() const
    {
        bool told;
        detail::must([&](kf_error *e) { return kf_stream_reader_is_compromised(handle_.get(), &told, e); });
        return told;
    }

    kf_stream_reader *get() const noexcept { return handle_.get(); }

private:
    static std::int32_t call(void *user, std::uint64_t offset, void *out, std::size_t len, std::size_t *read)
    {
        return detail::guard([&] { *read = (*static_cast<ReadAt *>(user))(offset, out, len); });
    }

    friend class Field;
    StreamReader() = default;
    /// Outlives the handle, whose calls use it.
    std::unique_ptr<ReadAt> read_;
    detail::Handle<kf_stream_reader, kf_stream_reader_free> handle_;
};

/// A field of the policy with scope and context. Made by Keyring::field.
class Field {
public:
    [[nodiscard]] Bytes encrypt(const Value &value, Row row = std::nullopt) const
    {
        std::size_t len;
        detail::must([&](kf_error *e) { return kf_sealed_len(handle_.get(), value.bytes_.size(), &len, e); });
        Bytes sealed(len);
        const detail::Optional bound(row);
        detail::must([&](kf_error *e) {
            return kf_encrypt(handle_.get(), value.type_, value.bytes_.data(), value.bytes_.size(), bound.data, bound.size,
                              sealed.data(), sealed.size(), &len, e);
        });
        sealed.resize(len);
        return sealed;
    }

    /// Begins to seal a stream: see kf_stream_seal.
    [[nodiscard]] Stream seal_stream(Row row = std::nullopt) const
    {
        Bytes header(KF_STREAM_HEADER_LEN);
        const detail::Optional bound(row);
        kf_stream *made;
        detail::must([&](kf_error *e) {
            return kf_stream_seal(handle_.get(), bound.data, bound.size, header.data(), header.size(), &made, e);
        });
        return Stream(made, std::move(header));
    }

    /// Begins to open the stream with this header: see kf_stream_open.
    [[nodiscard]] Stream open_stream(View header, Row row = std::nullopt) const
    {
        const detail::Optional bound(row);
        kf_stream *made;
        detail::must([&](kf_error *e) {
            return kf_stream_open(handle_.get(), header.data(), header.size(), bound.data, bound.size, &made, e);
        });
        return Stream(made);
    }

    /// A reader of any part of the stream of `sealed_len` bytes that `read` reads.
    [[nodiscard]] StreamReader stream_reader(std::uint64_t sealed_len, StreamReader::ReadAt read, Row row = std::nullopt) const
    {
        StreamReader reader;
        reader.read_ = std::make_unique<StreamReader::ReadAt>(std::move(read));
        const detail::Optional bound(row);
        kf_stream_reader *made;
        detail::must([&](kf_error *e) {
            return kf_stream_reader_new(handle_.get(), sealed_len, StreamReader::call, reader.read_.get(), bound.data, bound.size, &made, e);
        });
        reader.handle_.reset(made);
        return reader;
    }

    [[nodiscard]] Opened decrypt(View sealed, Row row = std::nullopt) const
    {
        Opened result = {Value(KF_TYPE_NULL, ""), false, false};
        Secret &out = result.value.bytes_;
        out.resize(kf_opened_len_max(sealed.size()));
        kf_opened what;
        const detail::Optional bound(row);
        detail::must([&](kf_error *e) {
            return kf_decrypt(handle_.get(), sealed.data(), sealed.size(), bound.data, bound.size, out.data(), out.size(), &what, e);
        });
        out.resize(what.len);
        result.value.type_ = static_cast<kf_type>(what.type);
        result.is_current = what.is_current;
        result.is_compromised = what.is_compromised;
        return result;
    }

    /// `types` has one of KF_TYPE_* for each row; `rows` is null where the policy does not bind rows.
    [[nodiscard]] Column encrypt_column(const std::vector<std::uint8_t> &types, const Column &values, const Column *rows = nullptr) const
    {
        const kf_column in = values.in(), of_rows = rows == nullptr ? kf_column{} : rows->in();
        if (types.size() != values.size())
            throw Error(KF_ERR_INVALID_INPUT);
        std::size_t len;
        detail::must([&](kf_error *e) { return kf_sealed_column_len(handle_.get(), &in, &len, e); });
        Column sealed;
        const kf_column_out out = sealed.out(len, in.rows);
        detail::must([&](kf_error *e) {
            return kf_encrypt_column(handle_.get(), types.data(), &in, rows == nullptr ? nullptr : &of_rows, &out, e);
        });
        return sealed;
    }

    [[nodiscard]] OpenedColumn decrypt_column(const Column &sealed, const Column *rows = nullptr) const
    {
        const kf_column in = sealed.in(), of_rows = rows == nullptr ? kf_column{} : rows->in();
        OpenedColumn result = {std::vector<std::uint8_t>(in.rows), {}, {}};
        const kf_column_out out = result.values.out(kf_opened_column_len_max(in.data_len, in.rows), in.rows);
        detail::must([&](kf_error *e) {
            return kf_decrypt_column(handle_.get(), &in, rows == nullptr ? nullptr : &of_rows, result.types.data(), result.types.size(),
                                     &out, &result.counts, e);
        });
        result.values.data_.resize(static_cast<std::size_t>(result.values.offsets_.back()));
        return result;
    }

    /// As decrypt_column, where a row that does not open leaves the others alone: look at `results`.
    [[nodiscard]] OpenedColumn decrypt_column_each(const Column &sealed, const Column *rows = nullptr) const
    {
        const kf_column in = sealed.in(), of_rows = rows == nullptr ? kf_column{} : rows->in();
        OpenedColumn result = {std::vector<std::uint8_t>(in.rows), {}, {}, std::vector<std::int32_t>(in.rows)};
        const kf_column_out out = result.values.out(in.data_len, in.rows);
        detail::must([&](kf_error *e) {
            return kf_decrypt_column_each(handle_.get(), &in, rows == nullptr ? nullptr : &of_rows, result.types.data(),
                                          result.types.size(), &out, result.results.data(), result.results.size(), &result.counts, e);
        });
        result.values.data_.resize(static_cast<std::size_t>(result.values.offsets_.back()));
        return result;
    }

    /// What a value of a deterministic field looks like when it is sealed, under each key that it can be under.
    [[nodiscard]] std::vector<Bytes> search(const Value &value) const
    {
        std::size_t keys, len;
        detail::must([&](kf_error *e) { return kf_search_keys(handle_.get(), &keys, e); });
        detail::must([&](kf_error *e) { return kf_sealed_len(handle_.get(), value.bytes_.size(), &len, e); });
        Bytes all(keys * len);
        detail::must([&](kf_error *e) {
            return kf_search(handle_.get(), value.type_, value.bytes_.data(), value.bytes_.size(), all.data(), all.size(), &len, e);
        });
        std::vector<Bytes> found;
        for (std::size_t key = 0, each = len / keys; key < keys; key++)
            found.emplace_back(all.data() + key * each, all.data() + (key + 1) * each);
        return found;
    }

    /// Whether a sealed value names the key that seals now.
    [[nodiscard]] bool is_current(View sealed) const
    {
        bool is_current;
        detail::must([&](kf_error *e) { return kf_is_current(handle_.get(), sealed.data(), sealed.size(), &is_current, e); });
        return is_current;
    }

    /// The blind index of the field that has this name in the policy.
    [[nodiscard]] Index index(std::string_view name) const
    {
        kf_index *made;
        detail::must([&](kf_error *e) { return kf_index_new(handle_.get(), name.data(), name.size(), &made, e); });
        return Index(made);
    }

    /// What stands in the place of a text that keeps its format. Not authenticated.
    [[nodiscard]] std::string format_encrypt(std::string_view text) const { return replaced(kf_format_encrypt, text); }
    /// What such a text stands for.
    [[nodiscard]] std::string format_decrypt(std::string_view text) const { return replaced(kf_format_decrypt, text); }

    const kf_field *get() const noexcept { return handle_.get(); }

private:
    template <typename Way> std::string replaced(Way way, std::string_view text) const
    {
        std::string out(text.size(), '\0');
        std::size_t len;
        detail::must([&](kf_error *e) { return way(handle_.get(), text.data(), text.size(), out.data(), out.size(), &len, e); });
        out.resize(len);
        return out;
    }

    friend class Keyring;
    explicit Field(kf_field *handle) : handle_(handle) {}
    detail::Handle<kf_field, kf_field_free> handle_;
};

/// What values are bound to besides field and row.
using Context = std::vector<std::pair<std::string, std::string>>;

/// A key in a key service that the program reaches: see kf_kek. Methods throw Error(KF_ERR_KMS_...); anything else that they throw
/// counts as KF_ERR_KMS_REJECTED. They run on threads of keyfold's, several at once.
class Kek {
public:
    virtual ~Kek() = default;
    /// Wraps KF_PAYLOAD_LEN bytes.
    virtual void wrap(const std::uint8_t *payload, const kf_kms_context &context, kf_wrapped &wrapped) = 0;
    virtual void unwrap(const kf_wrapped &wrapped, const kf_kms_context &context, std::uint8_t *payload) = 0;
};

/// What a keyring is told besides the configuration.
class Options {
public:
    Options()
    {
        kf_options *made;
        detail::must([&](kf_error *e) { return kf_options_new(&made, e); });
        handle_.reset(made);
    }
    explicit Options(const std::vector<std::string> &policies) : Options()
    {
        for (const std::string &policy : policies)
            add_policy(policy);
    }

    void add_policy(std::string_view path)
    {
        detail::must([&](kf_error *e) { return kf_options_add_policy(handle_.get(), path.data(), path.size(), e); });
    }
    void set_recovery(std::string_view reason)
    {
        detail::must([&](kf_error *e) { return kf_options_set_recovery(handle_.get(), reason.data(), reason.size(), e); });
    }
    void set_records(View records)
    {
        detail::must([&](kf_error *e) { return kf_options_set_records(handle_.get(), records.data(), records.size(), e); });
    }
    /// The configuration names it by `uri = "host:NAME"`.
    void add_kek(std::string_view name, std::shared_ptr<Kek> service)
    {
        using shared = std::shared_ptr<Kek>;
        auto user = std::make_unique<shared>(std::move(service));
        kf_kek made;
        made.wrap = [](void *of, const std::uint8_t *payload, const kf_kms_context *context, kf_wrapped *wrapped) -> std::int32_t {
            return detail::guard([&] { (*static_cast<shared *>(of))->wrap(payload, *context, *wrapped); });
        };
        made.unwrap = [](void *of, const kf_wrapped *wrapped, const kf_kms_context *context, std::uint8_t *payload) -> std::int32_t {
            return detail::guard([&] { (*static_cast<shared *>(of))->unwrap(*wrapped, *context, payload); });
        };
        made.release = detail::release<shared>;
        made.user = user.get();
        detail::must([&](kf_error *e) { return kf_options_add_kek(handle_.get(), name.data(), name.size(), &made, e); });
        user.release();
    }
    /// `ask` is given the alias of a KEK and returns its passphrase, or throws.
    void set_passphrase(std::function<Secret(std::string_view alias)> ask)
    {
        using function = std::function<Secret(std::string_view)>;
        auto user = std::make_unique<function>(std::move(ask));
        const auto call = [](void *of, const char *alias, std::size_t alias_len, std::uint8_t *out, std::size_t *len) -> std::int32_t {
            return detail::guard([&] {
                const Secret passphrase = (*static_cast<function *>(of))({alias, alias_len});
                if (passphrase.size() > KF_MAX_PASSPHRASE_LEN)
                    throw Error(KF_ERR_LIMIT_EXCEEDED);
                for (std::size_t i = 0; i < passphrase.size(); i++)
                    out[i] = passphrase[i];
                *len = passphrase.size();
            });
        };
        detail::must([&](kf_error *e) {
            return kf_options_set_passphrase(handle_.get(), call, detail::release<function>, user.get(), e);
        });
        user.release();
    }
    /// `record` is given each event as JSON. What it throws for does not happen.
    void set_audit(std::function<void(std::string_view event)> record)
    {
        using function = std::function<void(std::string_view)>;
        auto user = std::make_unique<function>(std::move(record));
        const auto call = [](void *of, const char *event, std::size_t event_len) -> std::int32_t {
            return detail::guard([&] { (*static_cast<function *>(of))({event, event_len}); });
        };
        detail::must([&](kf_error *e) {
            return kf_options_set_audit(handle_.get(), call, detail::release<function>, user.get(), e);
        });
        user.release();
    }

    const kf_options *get() const noexcept { return handle_.get(); }
    /// As get, where something is: C would take NULL for options that say nothing, and leave out the audit trail.
    const kf_options *given() const
    {
        if (!handle_)
            throw Error(KF_ERR_NULL_POINTER);
        return handle_.get();
    }

private:
    detail::Handle<kf_options, kf_options_free> handle_;
};

/// Makes a keyring in `folder`. Without `kek`, its key-encryption key is in a file, for one machine and for tests.
inline void init(std::string_view folder, std::string_view name, std::string_view environment,
                 std::optional<View> kek = std::nullopt, const Options *options = nullptr)
{
    const detail::Optional uri(kek);
    detail::must([&](kf_error *e) {
        return kf_init(folder.data(), folder.size(), name.data(), name.size(), environment.data(), environment.size(), uri.data,
                       uri.size, options == nullptr ? nullptr : options->given(), e);
    });
}

/// An open keyring. One is enough for a process.
class Keyring {
public:
    explicit Keyring(std::string_view path, const Options &options = {})
    {
        kf_keyring *made;
        detail::must([&](kf_error *e) { return kf_keyring_open(path.data(), path.size(), options.given(), &made, e); });
        handle_.reset(made);
    }

    /// Binds a field of the policy to a scope and a context.
    [[nodiscard]] Field field(std::string_view name, std::optional<View> scope = std::nullopt,
                                       const Context &pairs = {}) const
    {
        const auto context = context_of(pairs);
        const detail::Optional of(scope);
        kf_field *made;
        detail::must([&](kf_error *e) {
            return kf_field_new(handle_.get(), name.data(), name.size(), of.data, of.size, context.get(), &made, e);
        });
        return Field(made);
    }

    /// What protects and reveals JSON documents. `flags`: KF_PASS_UNMATCHED, KF_SEAL_SEALED.
    [[nodiscard]] Documents documents(std::optional<View> scope = std::nullopt, const Context &pairs = {}, std::uint32_t flags = 0) const
    {
        const auto context = context_of(pairs);
        const detail::Optional of(scope);
        kf_documents *made;
        detail::must([&](kf_error *e) {
            return kf_documents_new(handle_.get(), of.data, of.size, context.get(), flags, &made, e);
        });
        return Documents(made);
    }

    /// Makes a new key that seals from now on; older ones still open.
    kf_key_info rotate(std::optional<View> scope = std::nullopt)
    {
        const detail::Optional of(scope);
        kf_key_info made;
        detail::must([&](kf_error *e) { return kf_keyring_rotate(handle_.get(), of.data, of.size, &made, e); });
        return made;
    }

    /// All keys, in the order of their IDs.
    [[nodiscard]] std::vector<kf_key_info> keys() const
    {
        constexpr std::size_t page = 256;
        std::vector<kf_key_info> keys;
        for (std::size_t len = page; len == page;) {
            const std::size_t before = keys.size();
            keys.resize(before + page);
            const std::uint8_t *after = before == 0 ? nullptr : keys[before - 1].key_id;
            detail::must([&](kf_error *e) { return kf_keyring_list(handle_.get(), after, keys.data() + before, page, &len, e); });
            keys.resize(before + len);
        }
        return keys;
    }

    void reload(std::string_view path, const Options &options = {})
    {
        detail::must([&](kf_error *e) { return kf_keyring_reload(handle_.get(), path.data(), path.size(), options.given(), e); });
    }

    /// A copy of all key records, for Options::set_records. It holds no key in clear.
    [[nodiscard]] Bytes records() const
    {
        Bytes copy;
        const auto write = [](void *user, const void *records, std::size_t len) -> std::int32_t {
            return detail::guard([&] {
                const auto *begin = static_cast<const std::uint8_t *>(records);
                static_cast<Bytes *>(user)->assign(begin, begin + len);
            });
        };
        detail::must([&](kf_error *e) { return kf_keyring_records(handle_.get(), write, &copy, e); });
        return copy;
    }

    /// Every few seconds, on a thread of its own: renews keys, and records what was counted for an audit trail.
    void refresh()
    {
        detail::must([&](kf_error *e) { return kf_keyring_refresh(handle_.get(), e); });
    }

    /// Before each fork whose child uses the keyring.
    void before_fork()
    {
        if (const kf_result result = kf_keyring_before_fork(handle_.get()); result != KF_OK)
            throw Error(result);
    }

    /// Closes it before its destructor does. Its fields fail with KF_ERR_CLOSED from then on.
    void close() noexcept { handle_.reset(); }

    const kf_keyring *get() const noexcept { return handle_.get(); }

private:
    static detail::Handle<kf_context, kf_context_free> context_of(const Context &pairs)
    {
        detail::Handle<kf_context, kf_context_free> context;
        if (!pairs.empty()) {
            kf_context *made;
            detail::must([&](kf_error *e) { return kf_context_new(&made, e); });
            context.reset(made);
        }
        for (const auto &[key, value] : pairs)
            detail::must([&, &key = key, &value = value](kf_error *e) {
                return kf_context_add(context.get(), key.data(), key.size(), value.data(), value.size(), e);
            });
        return context;
    }

    detail::Handle<kf_keyring, kf_keyring_close> handle_;
};

/// Has `log` get what keyfold logs in this process, on any thread, several at once; what it throws is lost. An empty function: nobody.
inline void set_log(std::function<void(kf_log_level level, std::string_view text)> log)
{
    using function = std::function<void(kf_log_level, std::string_view)>;
    if (!log) {
        kf_set_log(nullptr, nullptr, nullptr);
        return;
    }
    const auto call = [](void *of, std::uint8_t level, const char *text, std::size_t len) {
        (void)detail::guard([&] { (*static_cast<function *>(of))(static_cast<kf_log_level>(level), {text, len}); });
    };
    kf_set_log(call, detail::release<function>, std::make_unique<function>(std::move(log)).release());
}

/// What a sealed value says of itself. Not authenticated.
[[nodiscard]] inline kf_inspection inspect(View sealed)
{
    kf_inspection inspection;
    detail::must([&](kf_error *e) { return kf_inspect(sealed.data(), sealed.size(), &inspection, e); });
    return inspection;
}

/// Which FIPS 140 module the library has, and what runs in it.
[[nodiscard]] inline kf_fips fips_status()
{
    kf_fips status;
    detail::must([&](kf_error *e) { return kf_fips_status(&status, e); });
    return status;
}

/// The text form of a sealed value.
[[nodiscard]] inline std::string to_text(View sealed)
{
    std::size_t len = kf_text_len(sealed.size());
    if (len == SIZE_MAX)
        throw Error(KF_ERR_LIMIT_EXCEEDED);
    std::string text(len, '\0');
    detail::must([&](kf_error *e) { return kf_to_text(sealed.data(), sealed.size(), text.data(), text.size(), &len, e); });
    text.resize(len);
    return text;
}

/// The sealed value whose text form is `text`.
[[nodiscard]] inline Bytes from_text(std::string_view text)
{
    std::size_t len;
    Bytes sealed(kf_text_sealed_len_max(text.size()));
    detail::must([&](kf_error *e) { return kf_from_text(text.data(), text.size(), sealed.data(), sealed.size(), &len, e); });
    sealed.resize(len);
    return sealed;
}

} // namespace keyfold

#endif // C++17

#endif // KEYFOLD_HPP
