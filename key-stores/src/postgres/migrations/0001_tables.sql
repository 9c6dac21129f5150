-- The constraints repeat what the code checks, so that a mistake in it cannot be stored.
CREATE TABLE counters (
    lineage    bytea PRIMARY KEY CHECK (length(lineage) = 16),
    generation bigint NOT NULL CHECK (generation BETWEEN 1 AND 4294967295)
);

-- One scope per keyed name, for ever: rows outlive the keys of the scope.
CREATE TABLE scopes (
    lineage    bytea NOT NULL CHECK (length(lineage) = 16),
    scope_tag  bytea NOT NULL CHECK (length(scope_tag) = 32),
    slot       bytea NOT NULL CHECK (length(slot) = 16),
    PRIMARY KEY (lineage, scope_tag),
    UNIQUE (lineage, scope_tag, slot)
);

CREATE TABLE records (
    lineage    bytea NOT NULL CHECK (length(lineage) = 16),
    key_id     bytea NOT NULL CHECK (length(key_id) = 24),
    class      smallint NOT NULL CHECK (class BETWEEN 1 AND 255),
    slot       bytea NOT NULL CHECK (length(slot) = 16),
    generation bigint NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    scope_tag  bytea CHECK (length(scope_tag) = 32),
    state      smallint NOT NULL CHECK (state BETWEEN 1 AND 255),
    sequence   bigint NOT NULL CHECK (sequence >= 0),
    record     bytea NOT NULL CHECK (length(record) BETWEEN 1 AND 65536),
    PRIMARY KEY (lineage, key_id),
    FOREIGN KEY (lineage, scope_tag, slot) REFERENCES scopes (lineage, scope_tag, slot)
);

CREATE INDEX records_by_slot ON records (lineage, class, slot, key_id);
