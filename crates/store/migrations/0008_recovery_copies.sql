-- The secrets of a deploy, sealed to the owner recovery keys of root metadata: HPKE ciphertexts that only the
-- owner can open.
CREATE TABLE recovery_copies (
    operation INTEGER NOT NULL PRIMARY KEY REFERENCES operations (number),
    wrapped_keys BLOB NOT NULL,
    sealed_values BLOB NOT NULL
);
