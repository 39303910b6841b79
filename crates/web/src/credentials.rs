//! Passwords and bearer tokens: made here, stored only as hashes.
//!
//! Passwords go through Argon2id (RFC 9106) with the parameters OWASP recommends. Bearer tokens are
//! 256 random bits, so one SHA-256 is enough to keep a stolen database from being used to sign in,
//! and looking them up by that hash leaks nothing about the token by timing.

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ids::{ApiTokenId, Sha256, sha256};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

/// Tells a ServerFlow session token from other secrets, for secret scanners.
const TOKEN_PREFIX: &str = "sfs_";
/// The same of an API token.
const API_TOKEN_PREFIX: &str = "sft_";
/// Characters of an API token's secret: 32 bytes, base64url.
const API_SECRET_CHARS: usize = 43;
/// Shortest password that may be set, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longest password accepted, in bytes: hashing is not free.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Why a credential could not be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No randomness to be had.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// The password cannot be hashed.
    #[error("the password cannot be hashed: it may have at most {PASSWORD_BYTES_MAX} bytes")]
    Password,
    /// The password may not be set.
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes")]
    PasswordRule,
}

/// A new bearer token, and the hash to store.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn bearer_token() -> Result<(Zeroizing<String>, Sha256), CredentialError> {
    let mut secret = Zeroizing::new([0u8; 32]);
    SysRng.try_fill_bytes(secret.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
    let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(secret.as_slice()));
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", encoded.as_str()));
    let hash = bearer_sha256(&token);
    Ok((token, hash))
}

/// What is stored of a bearer token.
#[must_use]
pub fn bearer_sha256(token: &str) -> Sha256 {
    sha256(token.as_bytes())
}

/// A new API token of that id, and the hash of its secret to store.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn api_token(id: ApiTokenId) -> Result<(Zeroizing<String>, Sha256), CredentialError> {
    let mut secret = Zeroizing::new([0u8; 32]);
    SysRng.try_fill_bytes(secret.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
    let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(secret.as_slice()));
    let id = ids::hex(id.as_bytes());
    Ok((Zeroizing::new(format!("{API_TOKEN_PREFIX}{id}_{}", encoded.as_str())), sha256(secret.as_slice())))
}

/// What a bearer token says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// A session's, by its hash.
    Session(Sha256),
    /// An API token, and the hash of the secret it brings.
    Token(ApiTokenId, Sha256),
}

/// Reads a bearer token by its prefix; what has another form is nobody's.
pub(crate) fn bearer_read(text: &str) -> Option<Bearer> {
    let Some(rest) = text.strip_prefix(API_TOKEN_PREFIX) else {
        return text.starts_with(TOKEN_PREFIX).then(|| Bearer::Session(bearer_sha256(text)));
    };
    let (id, secret) = rest.split_once('_')?;
    let id = ApiTokenId::try_from_slice(&HEXLOWER.decode(id.as_bytes()).ok()?).ok()?;
    if secret.len() != API_SECRET_CHARS {
        return None;
    }
    let secret = Zeroizing::new(BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?);
    Some(Bearer::Token(id, sha256(&secret)))
}

/// Whether a password may be set.
///
/// # Errors
/// When it is too short or too long.
pub fn password_rule(password: &str) -> Result<(), CredentialError> {
    let fits = password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if fits { Ok(()) } else { Err(CredentialError::PasswordRule) }
}

/// Argon2id of a password with a fresh salt, in PHC string form. Takes tens of milliseconds.
///
/// # Errors
/// When the password is too long or there is no randomness.
pub fn password_hash(password: &str) -> Result<String, CredentialError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(CredentialError::Password);
    }
    let mut salt = [0u8; 16];
    SysRng.try_fill_bytes(&mut salt).map_err(|_| CredentialError::Randomness)?;
    let hash: PasswordHash =
        Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| CredentialError::Password)?;
    Ok(hash.to_string())
}

/// Whether the password is the one behind the hash. Takes as long as [`password_hash`].
#[must_use]
pub fn password_matches(password: &str, hash: &str) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_only_its_own_hash() {
        let hash = password_hash("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(password_matches("correct horse", &hash));
        assert!(!password_matches("correct horse ", &hash));
        assert!(!password_matches("correct horse", "not a hash"));
        assert_ne!(hash, password_hash("correct horse").expect("hashed"), "salted");
    }

    #[test]
    fn api_tokens_are_read_back_and_nothing_else_is() {
        let id = ApiTokenId::from_bytes([7; 16]);
        let (token, secret) = api_token(id).expect("randomness");
        assert_eq!(bearer_read(&token), Some(Bearer::Token(id, secret)));
        assert!(token.starts_with("sft_07070707070707070707070707070707_") && token.len() == 80, "{}", token.len());
        let (session, hash) = bearer_token().expect("randomness");
        assert_eq!(bearer_read(&session), Some(Bearer::Session(hash)));
        let upper = token.to_uppercase();
        for other in ["", "sft_", "sft__", "abc", &token[..79], &format!("{}A", token.as_str()), &token[4..], &upper] {
            assert_eq!(bearer_read(other), None, "{other}");
        }
    }

    #[test]
    fn passwords_have_their_rule() {
        let long = "x".repeat(PASSWORD_BYTES_MAX);
        for good in ["twelve chars", "zwölf Zeiche", &long] {
            assert!(password_rule(good).is_ok(), "{good}");
        }
        for bad in ["", "eleven char", "äöüäöü", &format!("{long}x")] {
            assert!(password_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bearer_tokens_differ_and_hash_to_what_is_stored() {
        let (first, first_hash) = bearer_token().expect("randomness");
        let (second, _) = bearer_token().expect("randomness");
        assert_ne!(*first, *second);
        assert_eq!(bearer_sha256(&first), first_hash);
        assert!(first.len() == TOKEN_PREFIX.len() + 43);
    }
}
